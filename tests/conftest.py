"""A small phantom cohort, its datalist and a model trained on it, each made once a session, and the folder of real scans."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import warnings
from pathlib import Path

import absl.logging
import pytest
import torch
from tiny_training import SMALL
from torch.utils.data._utils import signal_handling

from monai_chd.cli import main
from monai_chd.nifti import read_volume


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny networks crawl with several threads on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def no_handler_of_ended_children():
    """PyTorch handles SIGCHLD once a DataLoader had workers; delivered to a process in which OpenVINO ran, it is a segfault.

    Commands never do both in one process; the tests do.
    """
    signal_handling._SIGCHLD_handler_set = True


@pytest.fixture(scope="session", autouse=True)
def streams_that_absl_leaves_open():
    """absl (of TensorBoard, ONNX) closes the stream of its handler when logging is set up anew, unless it is Python's own.

    Under pytest that stream is pytest's, and nothing can be printed after that.
    """
    absl.logging.get_absl_handler().python_handler.stream = sys.__stderr__


@pytest.fixture(autouse=True)
def loggers_as_they_were():
    """A run of the bundle leaves handlers, which write to the stream that pytest gave to that test only."""
    loggers = [logging.getLogger(name) for name in (None, "monai_chd")]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.fixture(scope="session")
def cohort(tmp_path_factory) -> Path:
    """24 phantom patients, 32 pixels, 8 to 12 slices."""
    folder = tmp_path_factory.mktemp("phantom") / "cohort"
    assert main(["phantom", str(folder), "--patients", "24", "--size", "32", "--slices", "8", "12"]) == 0
    return folder


@pytest.fixture(scope="session")
def datalist(cohort, tmp_path_factory) -> Path:
    """The cohort's datalist, two folds and a quarter held out."""
    work = tmp_path_factory.mktemp("work")
    assert main(["prepare", str(cohort), "--out", str(work), "--folds", "2", "--test-fraction", "0.25"]) == 0
    return work / "datalist.json"


@pytest.fixture(scope="session")
def trained(datalist, tmp_path_factory) -> Path:
    """Output folder of a training of two epochs."""
    out = tmp_path_factory.mktemp("trained")
    assert main(["train", str(datalist), "--out", str(out), "--max_epochs", "2", *SMALL]) == 0
    return out


@pytest.fixture(scope="session")
def evaluated(trained, datalist, tmp_path_factory) -> Path:
    """A copy of it, evaluated."""
    out = tmp_path_factory.mktemp("evaluated") / "out"
    shutil.copytree(trained, out)
    assert main(["evaluate", str(datalist), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="session")
def itk_loaded():
    """ITK's extension modules warn while they load; a warning that is an error there kills Python."""
    import itk

    scan = Path(__file__).parent / "data" / "ts_cardiac_ct_b.nii.gz"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        itk.array_from_matrix(itk.imread(str(scan)).GetDirection())
        read_volume(scan, "itk")


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    """Leave without the interpreter's teardown, in which ITK's libraries, loaded beside torch's, can crash after all is done."""
    status = getattr(config, "exit_status", None)
    if status is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    """Note the result for `pytest_unconfigure`."""
    session.config.exit_status = int(exitstatus)
