import platform
from importlib.metadata import PackageNotFoundError

import numpy as np
import torch

from monai_chd import __version__, versions
from monai_chd.versions import software_versions


def test_versions_are_those_of_the_packages_that_run():
    found = software_versions()
    assert set(found) == {"monai_chd", "monai", "torch", "numpy", "scikit-learn", "python"}
    assert found["monai_chd"] == __version__ and found["numpy"] == np.__version__
    assert found["torch"] == torch.__version__ and found["python"] == platform.python_version()


def test_version_of_a_missing_distribution_is_unknown(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(versions, "version", missing)
    assert software_versions()["monai"] == "unknown"
