"""Two ids are one patient's or not by one rule, wherever they meet."""

import itertools
import json
import random
import unicodedata
from pathlib import Path

import pytest
from tiny_datalist import quiet, record, write_list

from monai_chd.cohort.datalist import read_datalist
from monai_chd.cohort.joining import join
from monai_chd.cohort.splits import draw_split
from monai_chd.cohort.tables import Diagnosis
from monai_chd.identity import first_spellings, patient_key, same_patient
from monai_chd.labels import CLASSES
from monai_chd.workflow.begin import check_unseen

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "José") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("7", "07", True),
        ("0", "000", True),
        (7, " 007\t", True),
        ("7", "\u0667", True),  # an Arabic seven
        (COMPOSED, DECOMPOSED, True),
        ("p 1", " p 1\u00a0", True),
        ("7", "8", False),
        ("7", "70", False),
        ("a07", "a7", False),
        ("07-1", "7-1", False),
        ("2", "\u00b2", False),  # a small raised two is no decimal digit
        ("-7", "7", False),
        ("7.0", "7", False),
        ("A", "a", False),
        ("p 1", "p1", False),
        ("1" * 5000, "0" + "1" * 5000, True),
    ],
)
def test_digits_are_numbers_and_all_else_is_text_without_blanks_around_it(left, right, same):
    assert same_patient(left, right) is same is same_patient(right, left)


def test_the_first_spelling_is_written_out_without_blanks():
    assert first_spellings([" 07", "7", "x", DECOMPOSED, COMPOSED, "007"]) == {
        "7": "07",
        "x": "x",
        COMPOSED: DECOMPOSED,
    }


def same_in_joining(left: str, right: str, folder: Path) -> bool:
    scan = folder / "scan.nii.gz"
    return len(join(folder, [scan], [Diagnosis(2, left, label=CLASSES[0])], {scan: right}).cases) == 1


def same_in_splitting(left: str, right: str, folder: Path) -> bool:
    # two of a class in two folds: one in each, unless both ids are one patient, of whom there are too few then
    others = {f"other {label} {number}": label for label in CLASSES[1:] for number in range(2)}
    try:
        folds = draw_split({left: CLASSES[0], right: CLASSES[0], **others}, 2, 0, 0)
    except ValueError as error:
        assert f"{CLASSES[0]} has 1 patients" in str(error)
        return True
    assert folds[left] != folds[right]
    return False


def same_in_reading(left: str, right: str, folder: Path) -> bool:
    path = write_list(folder, {"fold 0": [record("a.nii", left)], "the test part": [record("b.nii", right)]})
    try:
        read_datalist(path)
    except ValueError as error:
        assert "patients in more than one place" in str(error)
        return True
    return False


def same_in_the_audit(left: str, right: str, folder: Path) -> bool:
    path = write_list(folder, {"fold 0": [record("a.nii", left)], "fold 1": [record("b.nii", right)]})
    return [one["kind"] for one in quiet(path)["leakage"]] == ["patient in two places"]


def same_in_refusing(left: str, right: str, folder: Path) -> bool:
    (folder / "trained_on.json").write_text(json.dumps({"patient": [left], "sha256": []}))
    try:
        check_unseen(folder / "model.pt", [{"patient": right}])
    except ValueError as error:
        assert "were seen in training" in str(error)
        return True
    return False


PLACES = (same_in_joining, same_in_splitting, same_in_reading, same_in_the_audit, same_in_refusing)


def spelling(chance: random.Random) -> str:
    """An id of few letters and digits, so that many are alike, in some spelling."""
    text = "".join(
        chance.choices(["0", "1", "\u0661", "a", "é", "e\u0301", "-", " ", "\u00b9"], k=chance.randint(1, 3))
    )
    text = chance.choice(["", "", " ", "\u00a0"]) + text + chance.choice(["", "", "\t"])
    return text if text.strip() else "x"


@pytest.mark.parametrize("seed", range(6))
def test_ids_are_one_patients_in_one_place_exactly_when_they_are_in_all(seed, tmp_path):
    chance = random.Random(seed)
    spellings = {spelling(chance) for _ in range(9)} | {"7", "07"}
    for left, right in itertools.combinations(sorted(spellings), 2):
        expected = patient_key(left) == patient_key(right)
        found = {place.__name__: place(left, right, tmp_path) for place in PLACES}
        assert found == dict.fromkeys(found, expected), (left, right)
