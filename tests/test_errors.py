import errno
import json
import os
import pickle
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from monai.transforms import Compose
from torch.utils.data import DataLoader, Dataset

from monai_chd.environment import UNLESS_TOLD
from monai_chd.errors import TRACEBACK_VARIABLE, UserError, UserFileError, bare_mistakes, user_error
from monai_chd.files import writable_folder
from monai_chd.nifti import read_volume
from monai_chd.transforms import LoadVolumed, WindowHU

ROOT = Path(__file__).parents[1]


def raised(action):
    """What an action raises, with its traceback."""
    try:
        action()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def wrapped(error, levels=1):
    """As MONAI wraps what fails in a transform."""
    for level in range(levels):
        try:
            raise RuntimeError(f"applying transform {level}") from error
        except RuntimeError as wrapper:
            error = wrapper
    return error


def no_scan():
    read_volume("/nowhere/scan.nii.gz")


def no_window():
    WindowHU((5, 1))


@pytest.mark.parametrize("action", [no_scan, no_window])
@pytest.mark.parametrize("levels", [0, 1, 5])
def test_mistake_is_found_under_any_number_of_runtime_errors(action, levels):
    mistake = raised(action)
    assert user_error(wrapped(mistake, levels)) is mistake


def test_mistake_is_found_under_the_errors_of_monai_itself():
    chain = Compose([Compose([LoadVolumed("image")])])
    error = raised(lambda: chain({"image": "/nowhere/scan.nii.gz"}))
    assert isinstance(error, RuntimeError)
    mistake = user_error(error)
    assert type(mistake) is UserFileError and str(mistake) == "/nowhere/scan.nii.gz: no such file"


def test_deepest_mistake_of_the_chain_is_the_one(tmp_path):
    deep = raised(no_scan)
    outer = raised(no_window)
    outer.__cause__ = wrapped(deep)
    assert user_error(wrapped(outer)) is deep


def test_what_another_library_raised_below_the_mistake_is_not_taken(tmp_path):
    (tmp_path / "file").touch()
    error = raised(lambda: writable_folder(tmp_path / "file" / "x"))
    assert isinstance(error.__cause__, OSError), "raised by pathlib, which knows no mend"
    assert user_error(wrapped(error)) is error


@pytest.mark.parametrize(
    "action",
    [
        lambda: int("x"),
        lambda: open("/nowhere/file"),  # noqa: SIM115
        lambda: Path("/nowhere").stat(),
        lambda: WindowHU()(5),
        lambda: {}["key"],
    ],
)
def test_faults_of_a_program_are_no_mistakes_of_the_user(action):
    error = raised(action)
    assert user_error(error) is None and user_error(wrapped(error)) is None


def test_errors_of_this_test_and_of_no_place_are_no_mistakes():
    def here():
        raise ValueError("here")

    assert user_error(raised(here)) is None
    assert user_error(ValueError("never raised")) is None
    assert user_error(raised(lambda: sys.exit(2))) is None


def test_a_mistake_can_be_caught_as_what_it_is_and_comes_whole_out_of_another_process():
    for kind, bases in ((UserError, (ValueError,)), (UserFileError, (ValueError, FileNotFoundError, UserError))):
        error = pickle.loads(pickle.dumps(kind("a.nii: no such file")))
        assert type(error) is kind and str(error) == "a.nii: no such file"
        assert all(isinstance(error, base) for base in bases)


# what the machine refuses


def test_a_full_disk_is_found_wherever_it_stands_in_the_chain():
    full = OSError(errno.ENOSPC, "No space left on device", "/out/log.txt")
    words = (
        "/out/log.txt: cannot be written (No space left on device); make room there, or choose another output folder"
    )
    assert str(user_error(wrapped(full, 2))).startswith(words)

    def clear_up():
        try:
            raise full
        finally:
            raise RuntimeError("unexpected pos 64 vs 0")

    assert str(user_error(wrapped(raised(clear_up)))).startswith(words)
    nameless = user_error(OSError(errno.ENOSPC, "No space left on device"))
    assert str(nameless).startswith("the output: cannot be written (No space left on device)")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are",
            "/dev/shm",
        ),
        ("unable to write to file </torch_7_3>: No space left on device (28)", "/dev/shm: too little shared memory"),
        ("unable to allocate shared memory(shm) for file </torch_7_3>: Success (0)", "--num_workers 0"),
        (
            "DataLoader worker (pid 7) is killed by signal: Killed. ",
            "a worker process was killed, most often for want of",
        ),
    ],
)
def test_workers_without_memory_are_the_machines_refusal(text, words):
    assert words in str(user_error(wrapped(RuntimeError(text))))
    assert user_error(ValueError(text)) is None


class UnreadableScans(Dataset):
    def __init__(self, kind):
        self.kind = kind

    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise self.kind("a.nii.gz: cut\n  b.nii.gz: UserError: empty")


@pytest.mark.parametrize("kind", [UserError, UserFileError])
def test_a_mistake_of_a_worker_process_is_as_it_was_raised(kind):
    error = raised(lambda: list(DataLoader(UnreadableScans(kind), num_workers=1)))
    assert "Traceback" in str(error), "torch's own text"
    mistake = user_error(error)
    assert type(mistake) is kind and str(mistake) == "a.nii.gz: cut\n  b.nii.gz: UserError: empty"


# where a mistake comes out


@pytest.fixture
def bundle_program(monkeypatch):
    """This program as `python -m monai.bundle` would be."""
    monkeypatch.delenv(TRACEBACK_VARIABLE, raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", ModuleSpec("monai.bundle.__main__", None))


@bare_mistakes()
def reads_no_scan(levels=3):
    """Reads a scan that is not there."""
    raise wrapped(raised(no_scan), levels)


def test_a_mistake_comes_out_bare_and_what_is_decorated_stays_what_it_was(monkeypatch):
    monkeypatch.delenv(TRACEBACK_VARIABLE, raising=False)
    error = raised(reads_no_scan)
    assert type(error) is UserFileError and str(error) == "/nowhere/scan.nii.gz: no such file"
    assert error.__cause__ is None and error.__suppress_context__
    assert (reads_no_scan.__name__, reads_no_scan.__doc__) == ("reads_no_scan", "Reads a scan that is not there.")


def test_a_mistake_that_nothing_is_around_keeps_what_it_came_from(tmp_path):
    (tmp_path / "file").touch()

    @bare_mistakes()
    def write():
        writable_folder(tmp_path / "file" / "x")

    assert isinstance(raised(write).__cause__, OSError)


@pytest.mark.usefixtures("bundle_program")
def test_a_mistake_ends_a_program_of_monai_bundle_with_its_line(monkeypatch):
    for levels in (0, 3):
        error = raised(lambda levels=levels: reads_no_scan(levels))
        assert type(error) is SystemExit and error.code.splitlines() == [
            "error: /nowhere/scan.nii.gz: no such file",
            "(set MONAI_CHD_TRACEBACK=1 to see where it was found)",
        ]
    monkeypatch.setenv(TRACEBACK_VARIABLE, "1")
    assert type(raised(reads_no_scan)) is RuntimeError


@pytest.mark.usefixtures("bundle_program")
def test_a_fault_of_the_program_and_an_end_that_was_asked_for_go_through():
    for kind in (KeyError, ValueError, KeyboardInterrupt, SystemExit):
        error = kind("x")
        with pytest.raises(kind) as caught, bare_mistakes():
            raise error
        assert caught.value is error


def run(tmp_path, **environment):
    """What `python -m monai.bundle run` prints of a config with one mistake in it."""
    config = {"data": {"_target_": "monai_chd.scans.find_inputs", "source": "/nowhere"}, "run": ["$@data"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", "--config_file", str(tmp_path / "config.json")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), TRACEBACK_VARIABLE: "", **UNLESS_TOLD, **environment},
    )
    assert done.returncode == 1
    return done.stderr


def test_monai_bundle_prints_one_line_and_how_to_see_more(tmp_path):
    lines = [line for line in run(tmp_path).splitlines() if " - INFO - " not in line and " - WARNING - " not in line]
    assert [line for line in lines if line.strip()] == [
        "error: /nowhere: no such file or folder; name a NIfTI file, or a folder of them or of DICOM files",
        "(set MONAI_CHD_TRACEBACK=1 to see where it was found)",
    ]


def test_the_variable_brings_the_full_traceback(tmp_path):
    printed = run(tmp_path, **{TRACEBACK_VARIABLE: "1"})
    assert printed.count("Traceback (most recent call last)") >= 2 and "finding.py" in printed
    assert "\nerror:" not in printed
