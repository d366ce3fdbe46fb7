"""What a program sets for its own process, in processes of their own only where that has to be."""

import io
import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

import monai_chd
from monai_chd.environment import UNLESS_TOLD, prepare_bundle_program, prepare_process

NAME = os.fsdecode(b"ct_\xe9.nii.gz")
"""A file name of Latin-1 bytes, as Python holds it."""


@pytest.fixture
def own_process(monkeypatch):
    """Variables as they were."""
    for name in (*UNLESS_TOLD, "MPLBACKEND"):
        monkeypatch.setenv(name, "of the user")
    return monkeypatch


def latin_stream(monkeypatch, name):
    """An output stream of this process, in an encoding of few characters; gives what came out there."""
    out = io.BytesIO()
    monkeypatch.setattr(sys, name, io.TextIOWrapper(out, encoding="latin-1", write_through=True))
    return out


def test_output_never_fails_on_a_character(own_process):
    out = latin_stream(own_process, "stdout")
    prepare_process()
    print(f"Müller \N{GREEK SMALL LETTER ALPHA} {NAME}")
    assert out.getvalue() == b"M\xfcller \\u03b1 ct_\\udce9.nii.gz\n"


@pytest.mark.usefixtures("own_process")
def test_pictures_go_to_files_whatever_backend_a_notebook_hands_down_and_other_variables_are_the_users():
    prepare_process()
    assert os.environ["MPLBACKEND"] == "agg"
    assert {os.environ[name] for name in UNLESS_TOLD} == {"of the user"}


def test_a_program_of_monai_bundle_is_told_once_what_makes_it_faster_and_a_library_touches_nothing(own_process):
    own_process.delenv("OMP_WAIT_POLICY")
    told = latin_stream(own_process, "stderr")
    prepare_bundle_program()
    assert os.environ["MPLBACKEND"] == "of the user" and sys.stderr.errors == "strict"
    own_process.setattr(sys.modules["__main__"], "__spec__", ModuleSpec("monai.bundle.__main__", None))
    prepare_bundle_program()
    assert os.environ["MPLBACKEND"] == "of the user" and sys.stderr.errors == "backslashreplace"
    assert told.getvalue() == (
        b"much faster on most machines: OMP_WAIT_POLICY=passive in the environment of this command\n"
    )


def test_matplotlib_loads_in_a_command_under_a_backend_that_is_not_installed():
    code = """
import monai_chd.cli as cli

def draw(options):
    from monai_chd.metrics.figures import Figure
    print("drawn")

cli.COMMANDS["audit"] = draw
cli.main(["audit", "datalist.json"])
"""
    given = os.environ | {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    done = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "drawn\n"), done.stderr[-500:]


def test_where_the_package_does_not_run_it_says_where_it_does(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ImportError, match=r"runs on Linux and macOS; on Windows, run it in WSL 2"):
        exec(compile(Path(monai_chd.__file__).read_text(), monai_chd.__file__, "exec"), {})
