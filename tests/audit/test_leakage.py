"""The audit names what stands in two places, is silent about a clean cohort, and says what it could not compare."""

import copy
import hashlib
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import zoom
from tiny_cohort import write_scan
from tiny_datalist import PLACES, quiet, record, write_list

from monai_chd.audit.leakage import audit, exit_code, has_leakage, nothing_compared, read_audit, write_audit
from monai_chd.audit.text import audit_text
from monai_chd.cli import main
from monai_chd.phantom.cohort import write_cohort

PATIENTS = 12


def pairs(findings):
    return {tuple(sorted(finding["images"])): finding["kind"] for finding in findings}


@pytest.fixture(scope="module", params=["plain", "realistic"])
def clean(request, tmp_path_factory):
    """A phantom cohort dealt over three places: folder, records by place."""
    folder = tmp_path_factory.mktemp(request.param) / "cohort"
    write_cohort(folder, patients=PATIENTS, size=48, slices=(24, 30), difficulty=request.param, seed=3, progress=False)
    places = {place: [] for place in PLACES}
    for number in range(PATIENTS):
        name = f"ct_{1001 + number}_image.nii.gz"
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        one = record(name, str(1001 + number), number // 3 % 3) | {"sha256": digest, "hu_offset": -1024.0}
        places[PLACES[number % 3]].append(one)
    return folder, places


def save(path, values, like):
    nib.save(nib.Nifti1Image(values, like.affine), path)


def plant(folder, out):
    """Copies of ct_1001 … ct_1006 (two a place): name of the copy by name of the original."""
    names = [f"ct_{1001 + number}_image.nii.gz" for number in range(6)]
    images = [nib.load(folder / name) for name in names]
    volumes = [np.asarray(image.dataobj) for image in images]
    shutil.copy(folder / names[0], out / "exact.nii.gz")
    save(out / "mirrored.nii.gz", volumes[1][::-1], images[1])
    save(out / "resampled.nii.gz", zoom(volumes[2].astype(np.float32), (0.8, 0.8, 1.2), order=1), images[2])
    save(out / "windowed.nii.gz", np.rint(np.clip((volumes[3] - 724.0) / 1500, 0, 1) * 255).astype(np.uint8), images[3])
    turned = images[4].as_reoriented(nib.orientations.axcodes2ornt("SPL"))
    save(out / "turned.nii.gz", np.asarray(turned.dataobj), turned)
    save(out / "hu.nii.gz", volumes[5].astype(np.float32) - 1024, images[5])
    copies = ("exact", "mirrored", "resampled", "windowed", "turned", "hu")
    return {name: str(out / f"{what}.nii.gz") for name, what in zip(names, copies, strict=True)}


@pytest.fixture(scope="module")
def planted(clean, tmp_path_factory):
    """The audit of the cohort with six copies, each under a new patient id in another place than its original."""
    folder, places = clean
    out = tmp_path_factory.mktemp("planted")
    copies = plant(folder, out)
    places = copy.deepcopy(places)
    for number, (name, planted_copy) in enumerate(copies.items()):
        places[PLACES[(number + 1) % 3]].append(record(planted_copy, f"new {name[3:7]}", 1))
    return copies, quiet(write_list(out, places, folder))


def test_a_clean_cohort_is_silent(clean, tmp_path):
    folder, places = clean
    result = quiet(write_list(tmp_path, places, folder))
    assert not has_leakage(result)
    assert (result["leakage"], result["notes"], result["problems"]) == ([], [], [])
    assert result["compared"] == {
        "scans": PATIENTS,
        "patients": PATIENTS,
        "places": dict.fromkeys(PLACES, 4),
        "against_scans": 0,
        "files_read": PATIENTS,
        "files_compared": PATIENTS,
        "files": PATIENTS,
        "pairs": PATIENTS * (PATIENTS - 1) // 2,
    }
    assert "LEAKAGE: none found" in audit_text(result)


def test_every_planted_copy_is_found_and_nothing_else(planted):
    copies, result = planted
    assert has_leakage(result)
    expected = {tuple(sorted(pair)): "near duplicate" for pair in copies.items()}
    expected[tuple(sorted(next(iter(copies.items()))))] = "same bytes"
    assert pairs(result["leakage"]) == expected
    assert result["notes"] == []


def test_a_planted_copy_is_named_with_its_places_and_how_it_lies(planted):
    copies, result = planted
    text = audit_text(result)
    for original, planted_copy in copies.items():
        line = next(line for line in text.splitlines() if planted_copy in line and "patient" in line)
        assert original in line
        assert sum(place in line for place in PLACES) == 2
    by_copy = {image: one for one in result["leakage"] for image in one["images"]}
    assert by_copy[copies["ct_1002_image.nii.gz"]]["orientation"] == "mirrored left-right"
    assert by_copy[copies["ct_1005_image.nii.gz"]]["orientation"] == "as is"
    assert "LEAKAGE: 6 found" in text


def test_a_copy_within_one_place_is_a_note(tmp_path):
    shutil.copy(write_scan(tmp_path / "a.nii.gz", 1), tmp_path / "b.nii.gz")
    path = write_list(tmp_path, {"fold 0": [record("a.nii.gz", "1"), record("b.nii.gz", "1")]})
    result = quiet(path)
    assert not has_leakage(result)
    assert pairs(result["notes"]) == {("a.nii.gz", "b.nii.gz"): "same bytes"}
    assert "no leakage" in audit_text(result)


@pytest.mark.parametrize("other", ["7", "007", 7], ids=["same", "zeros", "number"])
@pytest.mark.parametrize("place", PLACES[1:])
def test_a_patient_in_two_places_is_leakage(place, other, tmp_path):
    for number in (1, 2):
        write_scan(tmp_path / f"{number}.nii.gz", number)
    result = quiet(write_list(tmp_path, {"fold 0": [record("1.nii.gz", "7")], place: [record("2.nii.gz", other)]}))
    (finding,) = result["leakage"]
    assert finding["kind"] == "patient in two places"
    assert finding["images"] == ["1.nii.gz", "2.nii.gz"]
    assert finding["places"] == ["fold 0", place]
    assert f"2.nii.gz (patient {other}, {place})" in audit_text(result)


def test_a_patient_with_two_scans_in_one_fold_is_fine(tmp_path):
    for number in (1, 2):
        write_scan(tmp_path / f"{number}.nii.gz", number)
    result = quiet(write_list(tmp_path, {"fold 0": [record(f"{n}.nii.gz", "7") for n in (1, 2)]}))
    assert (result["leakage"], result["notes"]) == ([], [])
    assert result["compared"]["patients"] == 1


def test_the_same_image_listed_in_two_places_is_leakage(tmp_path):
    write_scan(tmp_path / "a.nii.gz", 1)
    lists = {"fold 0": [record("a.nii.gz", "1")], "fold 1": [record("./a.nii.gz", "2")]}
    assert pairs(quiet(write_list(tmp_path, lists))["leakage"]) == {("./a.nii.gz", "a.nii.gz"): "same bytes"}


def test_a_changed_file_is_a_problem_and_no_leakage(tmp_path):
    digest = hashlib.sha256(write_scan(tmp_path / "a.nii.gz", 1).read_bytes()).hexdigest()
    path = write_list(tmp_path, {"fold 0": [record("a.nii.gz", "1", sha256=digest)]})
    assert quiet(path)["problems"] == []
    write_scan(tmp_path / "a.nii.gz", 2)
    result = quiet(path)
    assert ["a.nii.gz" in one["problem"] and "changed" in one["problem"] for one in result["problems"]] == [True]
    assert not has_leakage(result)


def test_an_unreadable_file_is_a_problem_and_the_rest_goes_on(tmp_path):
    whole = write_scan(tmp_path / "a.nii.gz", 1).read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(whole)
    (tmp_path / "cut.nii.gz").write_bytes(whole[:500])
    lists = {
        "fold 0": [record("a.nii.gz", "1"), record("cut.nii.gz", "2")],
        "fold 1": [record("b.nii.gz", "3"), record("gone.nii.gz", "4")],
    }
    result = quiet(write_list(tmp_path, lists))
    assert {one["image"] for one in result["problems"]} == {"cut.nii.gz", "gone.nii.gz"}
    assert pairs(result["leakage"]) == {("a.nii.gz", "b.nii.gz"): "same bytes"}
    text = audit_text(result)
    assert "files read: 2 of 4" in text
    assert text.index("NOT COMPARED: 2 found") < text.index("LEAKAGE")
    assert ["cut.nii.gz" in line or "gone.nii.gz" in line for line in text.splitlines()].count(True) == 2
    assert exit_code(result) == 1  # leakage goes first
    assert nothing_compared(result) == ""


def test_what_is_clean_exits_with_0(clean, tmp_path):
    folder, places = clean
    result = quiet(write_list(tmp_path, {place: records[:1] for place, records in places.items()}, folder))
    assert (exit_code(result), nothing_compared(result)) == (0, "")
    assert "NOT COMPARED" not in audit_text(result)


def missing(folder):
    (folder / "1.nii.gz").unlink()
    return "1.nii.gz: no such file"


def cut_short(folder):
    path = folder / "1.nii.gz"
    path.write_bytes(path.read_bytes()[:500])
    return "1.nii.gz"


def showing_nothing(folder):
    write_scan(folder / "1.nii.gz", np.zeros((9, 9, 9), np.int16))
    return "1.nii.gz: shows nothing"


@pytest.mark.parametrize("spoil", [missing, cut_short, showing_nothing])
def test_one_scan_that_cannot_be_compared_exits_with_2_and_is_named_first(spoil, tmp_path):
    for number in range(3):
        write_scan(tmp_path / f"{number}.nii.gz", number)
    words = spoil(tmp_path)
    records = [record(f"{number}.nii.gz", str(number)) for number in range(3)]
    result = quiet(write_list(tmp_path, {"fold 0": records[:2], "the test part": records[2:]}))
    assert not has_leakage(result)
    assert exit_code(result) == 2
    assert nothing_compared(result) == ""
    text = audit_text(result)
    assert text.index("NOT COMPARED: 1 found") < text.index(words) < text.index("LEAKAGE: none found among")


def test_a_record_without_patient_exits_with_2(tmp_path):
    write_scan(tmp_path / "a.nii.gz", 1)
    assert exit_code(quiet(write_list(tmp_path, {"fold 0": [record("a.nii.gz", "")]}))) == 2


def test_a_file_that_changed_was_compared_and_exits_with_0(tmp_path):
    write_scan(tmp_path / "a.nii.gz", 1)
    result = quiet(write_list(tmp_path, {"fold 0": [record("a.nii.gz", "1", sha256="ab" * 32)]}))
    assert len(result["problems"]) == 1
    assert exit_code(result) == 0


@pytest.mark.parametrize(("other", "code"), [("2", 2), ("1", 1)], ids=["another patient", "the same patient"])
def test_an_audit_of_no_readable_scan_never_says_that_nothing_leaks(other, code, tmp_path):
    lists = {"fold 0": [record("a.nii.gz", "1")], "the test part": [record("b.nii.gz", other)]}
    result = quiet(write_list(tmp_path, lists))
    assert exit_code(result) == code
    error = nothing_compared(result)
    assert all(words in error for words in ("none of its 2 scans", "a.nii.gz: no such file", "--dataset-dir"))
    text = audit_text(result)
    assert "NO SCAN COULD BE COMPARED" in text
    assert "LEAKAGE: none found" not in text


def test_an_unreadable_scan_of_the_second_datalist_exits_with_2(tmp_path):
    write_scan(tmp_path / "a.nii.gz", 1)
    other = write_list(tmp_path / "other", {"fold 0": [record("gone.nii.gz", "9")]})
    result = quiet(write_list(tmp_path, {"fold 0": [record("a.nii.gz", "1")]}), against=other)
    assert exit_code(result) == 2
    assert result["problems"][0]["place"] == f"{other}: fold 0"


def test_patients_and_scans_of_the_test_part_that_weights_have_seen_are_leakage(tmp_path):
    """The planted mistake: a structure network trained on patients that the classifier is tested on."""
    for number in range(4):
        write_scan(tmp_path / f"{number}.nii.gz", number)
    digest = hashlib.sha256((tmp_path / "3.nii.gz").read_bytes()).hexdigest()
    lists = {"fold 0": [record("0.nii.gz", "P0")], "the test part": [record(f"{n}.nii.gz", f"P{n}") for n in (1, 2, 3)]}
    trained = {
        "structures/model.pt": {"patient": ["P0", "P2"], "sha256": []},
        "renamed.pt": {"patient": ["X"], "sha256": [digest]},
        "fine.pt": {"patient": ["P0"], "sha256": ["ab" * 32]},
    }
    result = quiet(write_list(tmp_path, lists), trained=trained)
    found = [finding for finding in result["leakage"] if finding["kind"] == "seen by weights"]
    assert [(one["images"], one["by"], one["places"][0].partition("; ")[2]) for one in found] == [
        (["3.nii.gz"], "same bytes", "renamed.pt was trained on it"),
        (["2.nii.gz"], "patient id", "structures/model.pt was trained on it"),
    ]
    assert exit_code(result) == 1 and result["weights"] == ["fine.pt", "renamed.pt", "structures/model.pt"]
    text = audit_text(result)
    assert (
        "seen by weights, by patient id: 2.nii.gz (patient P2, the test part; structures/model.pt was trained on it)"
        in text
    )
    write_audit(result, tmp_path / "audit.json")
    assert read_audit(tmp_path / "audit.json") == result


def test_copies_of_missing_files_are_known_by_the_recorded_sha256(tmp_path):
    lists = {place: [record(f"{place}.nii.gz", place, sha256="ab" * 32)] for place in PLACES[:2]}
    assert pairs(quiet(write_list(tmp_path, lists))["leakage"]) == {("fold 0.nii.gz", "fold 1.nii.gz"): "same bytes"}


def other_list(clean, folder):
    """A second datalist: a mirrored copy, a copied file, an id alone, and what nobody shares; beside it two of its own."""
    cohort, places = clean
    first, second, third = (records[0] for records in places.values())
    shutil.copy(cohort / first["image"], folder / "x.nii.gz")
    image = nib.load(cohort / second["image"])
    save(folder / "y.nii.gz", np.asarray(image.dataobj)[::-1], image)
    for number in (3, 4):
        write_scan(folder / f"{number}.nii.gz", number)
    shutil.copy(folder / "4.nii.gz", folder / "5.nii.gz")
    listed = [record("x.nii.gz", first["patient"]), record("y.nii.gz", "y"), record("3.nii.gz", third["patient"])]
    own = [record("4.nii.gz", "o")]
    return write_list(folder, {"fold 0": [*listed, *own], "fold 1": [record("5.nii.gz", "o")]})


def test_what_is_shared_with_a_second_datalist_is_leakage(clean, tmp_path):
    cohort, places = clean
    other = other_list(clean, tmp_path)
    result = quiet(write_list(tmp_path / "own", places, cohort), against=other)
    found = {one["images"][1]: one for one in result["leakage"]}
    assert {image: one["by"] for image, one in found.items()} == {
        "x.nii.gz": "same bytes",
        "y.nii.gz": "near duplicate",
        "3.nii.gz": "patient id",
    }
    assert [one["kind"] for one in result["leakage"]] == [f"shared with {other}"] * 3
    assert [found[f"{name}.nii.gz"]["images"][0] for name in "xy3"] == [places[place][0]["image"] for place in PLACES]
    assert result["notes"] == []
    assert f"x.nii.gz (patient {places[PLACES[0]][0]['patient']}, fold 0 of {other})" in audit_text(result)


def test_the_result_goes_through_json(planted, tmp_path):
    _, result = planted
    write_audit(result, tmp_path / "new" / "audit.json")
    assert json.loads((tmp_path / "new" / "audit.json").read_text()) == result


def test_arguments_out_of_range_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such datalist"):
        quiet(tmp_path / "none.json")
    with pytest.raises(ValueError, match="processes"):
        audit(tmp_path / "none.json", processes=0)


def test_dataset_dir_takes_the_place_of_the_root(tmp_path):
    write_scan(tmp_path / "images" / "a.nii.gz", 1)
    path = write_list(tmp_path, {"fold 0": [record("a.nii.gz", "1")]}, root="elsewhere")
    assert quiet(path)["compared"]["files_read"] == 0
    assert quiet(path, dataset_dir=tmp_path / "images")["compared"]["files_read"] == 1


def test_the_command_exits_as_its_help_says(tmp_path, capsys):
    write_scan(tmp_path / "a.nii.gz", 1)
    (clean, leaking, unread) = (
        write_list(tmp_path / name, lists, tmp_path)
        for name, lists in {
            "clean": {"fold 0": [record("a.nii.gz", "1")]},
            "leaking": {"fold 0": [record("a.nii.gz", "1")], "fold 1": [record("a.nii.gz", "1")]},
            "unread": {"fold 0": [record("gone.nii.gz", "1")]},
        }.items()
    )
    codes = {"clean": main(["audit", str(clean)]), "leaking": main(["audit", str(leaking)])}
    assert capsys.readouterr().err.count("error:") == 0
    codes["unread"] = main(["audit", str(unread)])
    assert "error: " + str(unread) + ": none of its 1 scans" in capsys.readouterr().err
    codes["no datalist"] = main(["audit", str(tmp_path / "none.json")])
    assert codes == {"clean": 0, "leaking": 1, "unread": 2, "no datalist": 2}
    assert json.loads((tmp_path / "unread" / "audit.json").read_text())["problems"]
    with pytest.raises(SystemExit):
        main(["audit", "--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert "Exit code 1: something leaks. 2: nothing seems to leak, but not all could be audited" in words
