"""The calibration is fitted to the last validation, and to that alone."""

from tiny_engines import validated, validation

from monai_chd.handlers import Calibrator
from monai_chd.metrics.calibration import calibrate


def test_the_calibration_is_fitted_to_the_last_validation_alone():
    labels, probabilities = validation(0)
    calibrator = validated(Calibrator(coverage=0.6), labels, probabilities)
    assert calibrator.calibration() == calibrate(labels, probabilities, coverage=0.6)
