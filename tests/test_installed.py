"""A wheel holds all that the package reads, and runs from an empty folder without the repository."""

import csv
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("monai_chd", "bundle", "setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy: pip leaves a `build` folder where it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source, ignored = ROOT / name, shutil.ignore_patterns("__pycache__")
        if source.is_dir():
            shutil.copytree(source, folder / "source" / name, ignore=ignored)
        else:
            shutil.copy(source, folder / "source" / name)
    words = [sys.executable, "-m", "pip", "wheel", str(folder / "source"), "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*words, "-q", "-w", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


def files(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.slow
def test_a_wheel_holds_every_file_of_the_package_and_of_the_bundle_and_nothing_else(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = {f"monai_chd/{name}" for name in files(ROOT / "monai_chd")}
    assert names == package | {f"monai_chd/bundle/{name}" for name in files(ROOT / "bundle")}
    assert any(name.endswith(".csv") for name in package) and "monai_chd/bundle/configs/train.json" in names


@pytest.mark.slow
def test_an_installed_package_does_the_whole_work_from_an_empty_folder(wheel, tmp_path):
    """In an environment with the tested dependencies, but not with this repository."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    words = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip())
    # of a folder in a .pth file no .pth file is read, so that an editable install is not followed
    (packages / "tested.pth").write_text(sysconfig.get_path("purelib") + "\n")
    words = [sys.executable, "-m", "pip", "-q", "--python", python, "install", "--no-deps", "--no-index", wheel]
    subprocess.run(words, check=True)
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def command(*words: str) -> str:
        line = [str(tmp_path / "venv" / "bin" / words[0]), *words[1:]]
        done = subprocess.run(line, cwd=empty, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert command("python", "-c", "import monai_chd; print(monai_chd.__file__)").startswith(str(packages))
    command("monai-chd", "phantom", "scans", "--patients", "12", "--size", "32", "--slices", "8", "10")
    command("monai-chd", "prepare", "scans", "--out", "work", "--folds", "2", "--test-fraction", "0.25")
    words = ["--frame_size", "16", "--sequence_length", "8", "--max_epochs", "1"]
    command("monai-chd", "train", "work/datalist.json", "--out", "out", *words)
    command("monai-chd", "predict", "scans", "--out", "out")
    with (empty / "out" / "inference" / "predictions.csv").open(newline="") as table:
        assert len(list(csv.DictReader(table))) == 12
    assert sorted(path.name for path in empty.iterdir()) == ["out", "scans", "work"]


def test_the_package_needs_nothing_newer_than_python_3_10():
    """The model zoo runs it; there is no such interpreter in every place where the tests run."""
    line = [
        str(Path(sys.executable).with_name("vermin")),
        "-t=3.10-",
        "--no-tips",
        "--violations",
        str(ROOT / "monai_chd"),
    ]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
