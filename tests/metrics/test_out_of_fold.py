"""A table of out-of-fold predictions is complete or refused, and is counted by repeat and by patient."""

import numpy as np
import pandas as pd
import pytest
from tiny_predictions import LABELS, REPEATS, of_repeat, table

from monai_chd.labels import CLASSES
from monai_chd.metrics.estimates import bootstrap_estimate
from monai_chd.metrics.out_of_fold import RAW, figure_estimate, mean_table, raw_probabilities, read_cases


@pytest.fixture(scope="module")
def predictions():
    return table(threshold=0.5)


@pytest.fixture(scope="module")
def cases(predictions):
    return read_cases(predictions)


def test_every_row_with_probabilities_is_a_case_of_its_patient_and_repeat(cases, predictions):
    assert [cases.names[i] for i in cases.patients] == predictions["patient"].tolist()
    assert cases.repeats.tolist() == predictions["repeat"].tolist()
    assert [CLASSES[k] for k in cases.labels] == predictions["label"].tolist()
    np.testing.assert_array_equal(cases.probabilities, predictions[list(CLASSES)])
    np.testing.assert_array_equal(cases.answered, ~predictions["abstain"])
    assert (cases.repeat_count, cases.n) == (REPEATS, len(LABELS))


def test_shares_right_and_labels_are_those_of_each_patient(cases, predictions):
    right = (predictions["prediction"] == predictions["label"]).groupby(predictions["patient"])
    np.testing.assert_allclose(cases.right_by_patient(), right.mean())
    np.testing.assert_array_equal(cases.all_right(), right.all())
    np.testing.assert_array_equal(cases.labels_by_patient(), LABELS)


def test_repeats_come_apart_and_patients_keep_their_index(cases, predictions):
    parts = cases.by_repeat()
    assert len(parts) == REPEATS
    for repeat, part in enumerate(parts):
        np.testing.assert_array_equal(part.probabilities, of_repeat(predictions, repeat)[1])
        assert part.names == cases.names and part.patients.tolist() == list(range(len(LABELS)))


def test_names_of_repeats_and_their_order_do_not_matter(predictions):
    renamed = predictions.assign(repeat=predictions["repeat"] * 10 + 3)
    np.testing.assert_array_equal(read_cases(renamed).repeats, predictions["repeat"])


def test_the_mean_table_has_one_row_an_image(predictions):
    mean = mean_table(predictions)
    expected = np.mean([of_repeat(predictions, repeat)[1] for repeat in range(REPEATS)], axis=0)
    np.testing.assert_allclose(mean[list(CLASSES)], expected)
    assert mean["patient"].tolist() == sorted(set(predictions["patient"]))


def test_an_estimate_takes_the_data_then_resamples_then_the_jackknife(cases):
    figures = cases.figures(resamples=200, seed=1)["accuracy"]
    assert figures.shape == (1 + 200 + len(LABELS),)
    estimate = figure_estimate(figures, 200, cases.n)
    assert estimate["value"] == pytest.approx(cases.right().mean()) and estimate["n"] == len(LABELS)
    assert estimate == bootstrap_estimate(figures[0], figures[1:201], figures[201:], cases.n)


def test_raw_probabilities_are_those_of_the_rows_that_have_any_or_none(predictions):
    np.testing.assert_array_equal(raw_probabilities(predictions), predictions[[RAW + name for name in CLASSES]])
    unread = change(predictions, 3, **dict.fromkeys((*CLASSES, *(RAW + name for name in CLASSES)), np.nan))
    assert len(raw_probabilities(unread)) == len(predictions) - 1
    assert raw_probabilities(change(predictions, 3, **{RAW + CLASSES[0]: np.nan})) is None
    assert raw_probabilities(predictions.drop(columns=RAW + CLASSES[0])) is None


def change(predictions, row, **cells):
    changed = predictions.copy()
    for name, value in cells.items():
        changed.loc[row, name] = value
    return changed


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.drop(columns="fold"), "fold is missing"),
        (lambda t: t.iloc[:0], "at least one row, came none"),
        (
            lambda t: t[~((t["repeat"] == 1) & (t["fold"] == 0))],
            r"repeat 1: expected each of 36 images once, came 24 rows",
        ),
        (lambda t: pd.concat([t, t.iloc[:1]]), "repeat 0: expected each of 36 images once, came 37 rows of 36"),
        (lambda t: change(t, 0, label=CLASSES[2]), "patient p000: expected one label, came 2"),
        (lambda t: change(t, 5, label="CHD"), "image ct_p005.nii.gz: expected a label out of .* came 'CHD'"),
        (lambda t: change(t, 40, Normal=np.nan), "repeat 1, image ct_p004.nii.gz: expected finite"),
        (lambda t: change(t, 40, **dict.fromkeys(CLASSES, np.nan)), "ct_p004.nii.gz: expected finite"),
        (lambda t: change(t, 40, Normal=2.0), "ct_p004.nii.gz: expected a sum of 1"),
        (lambda t: t.assign(**dict.fromkeys(CLASSES, np.nan), abstain=True), "expected probabilities, no row has any"),
    ],
)
def test_a_table_that_is_none_is_refused(spoil, message):
    with pytest.raises(ValueError, match=message):
        read_cases(spoil(table()))
