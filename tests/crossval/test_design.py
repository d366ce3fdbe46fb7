"""Designs: every patient tested once a repeat, the files that they were drawn for, and no going on with another design."""

from __future__ import annotations

import hashlib
import json

import pytest
from tiny_design import edit_json, write_datalist

from monai_chd.cohort.datalist import load_cases
from monai_chd.crossval.design import check_comparable, fit_datalist, new_design, read_folds, save_or_check
from monai_chd.crossval.folds import inner_part
from monai_chd.labels import CLASSES


@pytest.fixture
def datalist(tmp_path):
    return write_datalist(tmp_path / "work")


def test_every_patient_is_in_one_fold_of_each_repeat_held_out_ones_too(datalist):
    design = new_design(datalist, folds=3, repeats=4)
    content = json.loads(datalist.read_text())
    everyone = {record["patient"] for part in ("training", "test") for record in content[part]}
    assert content["test"] and set(design.assignment) == everyone == set(design.labels)
    assert all(len(folds) == 4 and set(folds) <= {0, 1, 2} for folds in design.assignment.values())
    assert len({tuple(f[r] for f in design.assignment.values()) for r in range(4)}) == 4  # each repeat drawn anew


def test_classes_are_in_proportion_in_every_fold(datalist):
    counts = new_design(datalist, folds=3, repeats=2).class_by_fold()
    for name, total in zip(CLASSES, (8, 7, 6), strict=True):
        for repeat in counts[name]:
            assert sum(repeat) == total and max(repeat) - min(repeat) <= 1


def test_a_patients_scans_stay_together(tmp_path):
    design = new_design(write_datalist(tmp_path, scans=2), folds=3, repeats=2)
    for fold in range(3):
        fitted = fit_datalist(design, 1, fold, tmp_path)
        places = {}
        for part in ("training", "test"):
            for record in fitted[part]:
                places.setdefault(record["patient"], []).append((part, record.get("fold")))
        assert all(len(found) == 2 and len(set(found)) == 1 for found in places.values())


def test_a_fit_trains_chooses_and_tests_on_different_patients(datalist, tmp_path):
    design = new_design(datalist, folds=3, repeats=2)
    folder = tmp_path / "cv" / "fits" / "r1f2"
    folder.mkdir(parents=True)
    (folder / "datalist.json").write_text(json.dumps(fit_datalist(design, 1, 2, folder)))
    cases = load_cases(folder / "datalist.json", datalist.parent / "scans", 0)  # reads and checks it, finds all images
    parts = {name: {case["patient"] for case in part} for name, part in cases.items()}
    assert parts["test"] == {p for p, folds in design.assignment.items() if folds[1] == 2}
    assert not parts["train"] & parts["validate"] and not (parts["train"] | parts["validate"]) & parts["test"]
    assert set().union(*parts.values()) == set(design.labels)
    for name in ("train", "validate"):
        assert {case["label"] for case in cases[name]} == {0, 1, 2}


def test_a_control_may_give_a_fit_other_labels_and_its_inner_split_follows_them(datalist, tmp_path):
    design = new_design(datalist, folds=3, repeats=1)
    labels = {patient: (label + 1) % 3 for patient, label in design.labels.items()}
    content = fit_datalist(design, 0, 1, tmp_path, labels)
    assert {r["patient"]: r["label"] for part in ("training", "test") for r in content[part]} == labels
    rest = {p: labels[p] for p, folds in design.assignment.items() if folds[0] != 1}
    assert {r["patient"] for r in content["training"] if r["fold"] == 0} == inner_part(rest, design.fit_seed(0, 1))


def test_no_two_fits_have_one_seed(datalist):
    design = new_design(datalist, folds=3, repeats=3)
    assert len({design.fit_seed(r, f) for r in range(3) for f in range(3)}) == 9


def test_the_saved_folds_hold_the_hash_of_every_file_and_a_design_goes_on(datalist, tmp_path):
    design = new_design(datalist, folds=3, repeats=2, settings={"window": (-1, 2)})
    save_or_check(design, tmp_path / "cv")
    before = (tmp_path / "cv" / "folds.json").read_bytes()
    content = read_folds(tmp_path / "cv" / "folds.json")
    for image, digest in content["sha256"].items():
        assert hashlib.sha256((datalist.parent / "scans" / image).read_bytes()).hexdigest() == digest
    assert (tmp_path / "cv" / content["datalist"]).resolve() == datalist.resolve()
    save_or_check(new_design(datalist, folds=3, repeats=2, settings={"window": [-1, 2]}), tmp_path / "cv")
    assert (tmp_path / "cv" / "folds.json").read_bytes() == before


def test_keys_that_change_no_result_may_differ_when_going_on(datalist, tmp_path):
    save_or_check(new_design(datalist, folds=3, settings={"cache_dir": "a", "num_workers": 0}), tmp_path)
    design = new_design(datalist, folds=3, settings={"cache_dir": "b", "num_workers": 2})
    save_or_check(design, tmp_path)
    assert design.local == {"cache_dir": "b", "num_workers": 2}


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"seed": 1}, r"seed 42 \(asked: 1\)"),
        ({"repeats": 1}, r"repeats 5 \(asked: 1\)"),
        ({"settings": {"pooling": "max"}}, r"pooling as in the config \(asked: 'max'\)"),
    ],
)
def test_another_design_does_not_go_on_in_the_same_folder(datalist, tmp_path, choices, message):
    save_or_check(new_design(datalist, folds=3), tmp_path / "cv")
    with pytest.raises(ValueError, match=message + ".*choose another --out"):
        save_or_check(new_design(datalist, folds=3, **choices), tmp_path / "cv")


def test_files_changed_since_the_folds_were_made_are_one_error(datalist, tmp_path):
    save_or_check(new_design(datalist, folds=3), tmp_path / "cv")
    scan = datalist.parent / "scans" / "ct_1003_image.nii.gz"
    scan.write_bytes(b"other")
    edit_json(datalist, lambda content: [r.pop("sha256") for part in ("training", "test") for r in content[part]])
    with pytest.raises(ValueError, match=r"1 files have changed since the folds in .*made: ct_1003_image\.nii\.gz"):
        save_or_check(new_design(datalist, folds=3), tmp_path / "cv")


def test_files_changed_since_the_datalist_was_made_are_one_error(datalist):
    (datalist.parent / "scans" / "ct_1003_image.nii.gz").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"1 files have changed since the datalist was made: ct_1003_image.*prepare"):
        new_design(datalist, folds=3)


def test_missing_scans_are_listed(datalist):
    (datalist.parent / "scans" / "ct_1003_image.nii.gz").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"1 scans of .* are not in .*ct_1003_image\.nii\.gz; give their folder"
    ):
        new_design(datalist, folds=3)


def test_another_datalist_or_other_classes_do_not_go_on(datalist, tmp_path):
    save_or_check(new_design(datalist, folds=3), tmp_path / "cv")
    other = write_datalist(tmp_path / "other", (8, 8, 8))
    with pytest.raises(ValueError, match="was made for another datalist"):
        save_or_check(new_design(other, folds=3), tmp_path / "cv")
    edit_json(datalist, lambda content: content["training"][0].update(label=2))
    patient = json.loads(datalist.read_text())["training"][0]["patient"]
    with pytest.raises(ValueError, match=f"with other classes of {patient}"):
        save_or_check(new_design(datalist, folds=3), tmp_path / "cv")


def test_something_else_by_the_name_of_the_folds_is_not_overwritten(datalist, tmp_path):
    (tmp_path / "folds.json").write_text('{"mine": 1}')
    with pytest.raises(ValueError, match="not the folds of a cross-validation"):
        save_or_check(new_design(datalist, folds=3), tmp_path)
    assert (tmp_path / "folds.json").read_text() == '{"mine": 1}'


@pytest.mark.parametrize("folds", [2, 3, 4, 5])
def test_the_fewest_patients_that_are_taken_make_whole_fits(tmp_path, folds):
    needed = {2: 4, 3: 3, 4: 4, 5: 5}[folds]
    design = new_design(write_datalist(tmp_path, (needed,) * 3), folds=folds, repeats=3)
    for repeat in range(3):
        for fold in range(folds):
            content = fit_datalist(design, repeat, fold, tmp_path)
            found = {(r["fold"], r["label"]) for r in content["training"]}
            assert found == {(f, k) for f in (0, 1) for k in range(3)}
            assert {record["label"] for record in content["test"]} == {0, 1, 2}


def test_a_patient_of_two_classes_is_refused(tmp_path):
    datalist = write_datalist(tmp_path, scans=2)
    edit_json(datalist, lambda content: content["training"][0].update(label=2))
    with pytest.raises(ValueError, match="patients whose scans have different classes: 1002"):
        new_design(datalist, folds=3)


@pytest.mark.parametrize("choices", [{"folds": 1}, {"repeats": 0}, {"seed": -1}])
def test_choices_out_of_range_are_refused(datalist, choices):
    with pytest.raises(ValueError, match=f"{next(iter(choices))}: expected"):
        new_design(datalist, **choices)


def test_only_the_same_patients_in_the_same_folds_compare(datalist, tmp_path):
    design = new_design(datalist, folds=3, repeats=2, settings={"pooling": "max"})
    save_or_check(new_design(datalist, folds=3, repeats=2), tmp_path / "same")
    check_comparable(design, tmp_path / "same")  # other settings are what is compared
    for name, choices, message in (
        ("seed", {"seed": 5}, r"other folds \(another --seed\?\)"),
        ("folds", {"folds": 4}, "other number of folds"),
        ("repeats", {"repeats": 3}, "other number of repeats"),
    ):
        save_or_check(new_design(datalist, **{"folds": 3, "repeats": 2} | choices), tmp_path / name)
        with pytest.raises(ValueError, match=message):
            check_comparable(design, tmp_path / name)
    save_or_check(new_design(write_datalist(tmp_path / "b", (8, 8, 8)), folds=3, repeats=2), tmp_path / "list")
    with pytest.raises(ValueError, match="other patients or classes"):
        check_comparable(design, tmp_path / "list")
    with pytest.raises(FileNotFoundError, match="no cross-validation there"):
        check_comparable(design, tmp_path / "nowhere")


def test_flags_of_a_patient_are_those_of_all_scans(tmp_path):
    datalist = write_datalist(tmp_path, scans=2)
    flags = {"ct_1001_image.nii.gz": ["ASD"], "ct_1001_image1.nii.gz": ["ASD", "VSD"]}

    def change(content):
        for record in content["training"] + content["test"]:
            record["flags"] = flags.get(record["image"], [])
            if record["patient"] == "1002":
                del record["flags"]

    found = new_design(edit_json(datalist, change), folds=3).flags
    assert (found["1001"], found["1002"], found["1003"]) == (["ASD", "VSD"], [], [])
