import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from monai.transforms import Compose

from monai_chd.errors import TRACEBACK_VARIABLE, UserError, UserFileError, short_errors, user_error
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


SCRIPT = """
from monai_chd.errors import short_errors
short_errors()
"""


@pytest.mark.parametrize(("shown", "variable"), [(True, ""), (False, "1")])
def test_hook_shows_mistakes_short_unless_the_variable_is_set(monkeypatch, capsys, shown, variable):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # to be put back
    monkeypatch.setenv(TRACEBACK_VARIABLE, variable)
    short_errors()
    for action in (no_scan, {}.popitem):
        error = raised(action)
        sys.excepthook(type(error), error, error.__traceback__)
        short = shown and action is no_scan
        assert capsys.readouterr().err.startswith("error: /nowhere" if short else "Traceback (most recent call last)")


MISTAKE = """
from monai_chd.files import writable_folder
try:
    writable_folder("/dev/null/x")
except ValueError as error:
    raise RuntimeError("applying transform") from error
"""


def run(code, **environment):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env={name: value for name, value in environment.items() if value is not None},
    )
    assert done.returncode == 1 and done.stdout == ""
    return done.stderr


def test_mistake_prints_as_one_line_and_how_to_see_more():
    lines = run(SCRIPT + MISTAKE, **{TRACEBACK_VARIABLE: None}).splitlines()
    assert lines == [
        "error: /dev/null/x: cannot write there (Not a directory); choose another output folder",
        "(set MONAI_CHD_TRACEBACK=1 to see where it was found)",
    ]


def test_variable_brings_the_full_traceback():
    printed = run(SCRIPT + MISTAKE, **{TRACEBACK_VARIABLE: "1"})
    assert printed.count("Traceback (most recent call last)") >= 2 and "files.py" in printed
    assert "\nerror:" not in printed and printed.endswith("RuntimeError: applying transform\n")


def test_fault_of_the_program_prints_in_full():
    printed = run(SCRIPT + "{}['key']", **{TRACEBACK_VARIABLE: None})
    assert printed.startswith("Traceback") and printed.endswith("KeyError: 'key'\n")


def test_without_short_errors_nothing_changes():
    assert run(MISTAKE, **{TRACEBACK_VARIABLE: None}).startswith("Traceback")
