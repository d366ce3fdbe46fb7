"""From DICOM to a trained model and back: every byte that is written is searched for what identifies a patient."""

import csv
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from dicom_series import IDENTIFYING, write_as_dicom, write_series
from tiny_training import SMALL

from monai_chd.cli import main
from monai_chd.labels import CLASSES


@pytest.fixture(scope="module")
def dicom(cohort, tmp_path_factory) -> Path:
    """The phantom cohort as DICOM of patients with its ids, in folders that bear a name."""
    folder = tmp_path_factory.mktemp("hospital") / "dicom"
    for scan in sorted(cohort.glob("ct_*_image.nii.gz")):
        number = scan.name.split("_")[1]
        write_as_dicom(scan, folder / f"Zebedee_{int(number) % 7}" / number, number)
    shutil.copy(next(cohort.glob("*.xlsx")), folder)
    return folder


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def work(dicom, tmp_path_factory) -> tuple[Path, str]:
    """Everything done with it, in one folder, and all that was printed and logged."""
    folder = tmp_path_factory.mktemp("done")
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())

    write_series(dicom.parent / "bad" / "Zebedee", shear=(0, 0.3, 0))
    write_series(dicom.parent / "bad" / "Quentin", change=lambda ds, index: None if index == 3 else ds)
    cut = write_series(dicom.parent / "bad" / "778812")
    cut[4].write_bytes(cut[4].read_bytes()[:-700])
    handler = Lines()
    logging.getLogger().addHandler(handler)
    datalist, out = str(folder / "work" / "datalist.json"), str(folder / "out")
    try:
        steps = [
            (["prepare", str(dicom), "--out", str(folder / "work"), "--folds", "2", "--test-fraction", "0.25"], 0),
            (["audit", datalist], 0),
            (["train", datalist, "--out", out, "--max_epochs", "1", *SMALL, "--cache", "frames"], 0),
            (["cache", datalist, "--format", "jpg", "--out", str(folder / "jpg"), *SMALL[:4]], 0),
            (["evaluate", datalist, "--out", out], 0),
            (["predict", str(dicom), "--out", out], 0),
            (["predict", str(dicom.parent / "bad"), "--out", str(folder / "out")], 1),
        ]
        for words, code in steps:
            assert main(words) == code, words
    finally:
        logging.getLogger().removeHandler(handler)
    return folder, "\n".join(lines)


def test_every_step_wrote_something_and_none_of_it_identifies(work):
    folder, log = work
    outputs = [path for path in folder.rglob("*") if path.is_file() and ".private" not in str(path)]
    assert {path.relative_to(folder).parts[0] for path in outputs} == {"work", "out", "jpg"}
    assert len(outputs) > 50
    for path in outputs:
        content = path.read_bytes() + str(path.relative_to(folder)).encode()
        assert not [word for word in IDENTIFYING if word.encode() in content], path
    without_commands = "\n".join(line for line in log.splitlines() if "hospital" not in line)
    assert not [word for word in IDENTIFYING if word in without_commands]


def test_what_identifies_is_in_the_private_folder_only(work):
    folder, _ = work
    names = (folder / "work.private" / "names.csv").read_text()
    assert "1.2.826.0.1.3680043" in names
    assert "Zebedee_3" in names


def test_each_refused_series_is_a_row_with_its_reason(work):
    folder, _ = work
    rows = table(folder / "out" / "inference" / "predictions.csv")
    reasons = sorted(row["reason"].partition(": ")[2] for row in rows)
    assert reasons[0] == "1 of 12 images: cut: 2180 of 2880 bytes of pixels; copy or send the series again"
    assert reasons[1].startswith("a slice is missing: 1.60 mm between slices 3 and 4 of 11")
    assert reasons[2].startswith("tilted by 20.6 degrees")
    assert all(row["prediction"] == "" for row in rows)


def test_probabilities_are_those_of_the_nifti_files(work, dicom, cohort, tmp_path):
    folder, _ = work
    shutil.copytree(folder / "out" / "models", tmp_path / "a" / "models")
    shutil.copytree(folder / "out" / "models", tmp_path / "b" / "models")
    assert main(["predict", str(dicom), "--out", str(tmp_path / "a")]) == 0
    assert main(["predict", str(cohort), "--out", str(tmp_path / "b")]) == 0
    who = {row["name"]: row["patient"] for row in table(tmp_path / "a.private" / "names.csv")}
    of_dicom = {who[row["image"]]: row for row in table(tmp_path / "a" / "inference" / "predictions.csv")}
    of_nifti = {row["image"].split("_")[1]: row for row in table(tmp_path / "b" / "inference" / "predictions.csv")}
    assert len(of_nifti) == 24
    assert set(of_dicom) == set(of_nifti)
    for number, row in of_nifti.items():
        truth, got = ([float(each[name]) for name in CLASSES] for each in (row, of_dicom[number]))
        np.testing.assert_allclose(got, truth, atol=1e-6)
