"""The audit names what stands in two places, is silent about a clean cohort, and tests confounders as scipy does."""

import copy
import hashlib
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import zoom
from scipy.stats import chi2_contingency, kruskal
from tiny_cohort import write_scan

from monai_chd.audit import audit, audit_text, has_leakage, write_audit
from monai_chd.labels import CLASSES
from monai_chd.metrics import wilson_interval
from monai_chd.phantom import write_cohort

PATIENTS = 12
PLACES = ("fold 0", "fold 1", "the test part")


def record(image, patient, label=0, **more):
    return {"image": image, "patient": patient, "label": label, "flags": [], "sha256": "", **more}


def write_list(folder, places, root="."):
    """A datalist of records by place: folds of the training part, and the test part."""
    content = {"root": str(root), "classes": list(CLASSES), "training": [], "test": []}
    for place, records in places.items():
        for one in records:
            training = place != PLACES[2]
            content["training" if training else "test"].append({**one, "fold": int(place[-1])} if training else one)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "datalist.json"
    path.write_text(json.dumps(content))
    return path


def quiet(path, **options):
    return audit(path, processes=1, progress=False, **options)


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
    assert "not all files could be read" in text


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


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("no json", "not a datalist"),
        ("[1]", "not a datalist"),
        ('{"training": 3}', "not a datalist"),
        ("{}", "no case"),
    ],
)
def test_what_is_no_datalist_is_refused(content, words, tmp_path):
    (tmp_path / "datalist.json").write_text(content)
    with pytest.raises(ValueError, match=words):
        quiet(tmp_path / "datalist.json")


def test_arguments_out_of_range_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such datalist"):
        quiet(tmp_path / "none.json")
    with pytest.raises(ValueError, match="processes"):
        audit(tmp_path / "none.json", processes=0)


def test_records_that_lack_everything_are_problems(tmp_path):
    write_scan(tmp_path / "a.nii.gz", 1)
    content = {"root": ".", "training": ["text", {"patient": "1"}, {"image": "a.nii.gz"}], "test": []}
    (tmp_path / "datalist.json").write_text(json.dumps(content))
    result = quiet(tmp_path / "datalist.json")
    assert [
        next(words for words in ("names no image", "no patient id") if words in one["problem"])
        for one in result["problems"]
    ] == ["names no image", "names no image", "no patient id"]
    assert result["compared"]["places"] == {"training, no fold": 1}
    assert audit_text(result)


def test_dataset_dir_takes_the_place_of_the_root(tmp_path):
    write_scan(tmp_path / "images" / "a.nii.gz", 1)
    path = write_list(tmp_path, {"fold 0": [record("a.nii.gz", "1")]}, root="elsewhere")
    assert quiet(path)["compared"]["files_read"] == 0
    assert quiet(path, dataset_dir=tmp_path / "images")["compared"]["files_read"] == 1


def cohort_of_numbers(folder, seed=0, per_class=20, by_class=False, shuffled=False):
    """A datalist without files; slice counts are random, or follow the class."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(range(3), per_class)
    slices = rng.integers(150, 300, len(labels)) + (200 * labels if by_class else 0)
    labels = rng.permutation(labels) if shuffled else labels
    records = [
        record(f"{number}.nii.gz", str(number), int(label))
        | {
            "confounders": {
                "slices": int(count),
                "spacing_mm": [0.4, 0.5, float(rng.uniform(0.5, 1))] if number % 5 else None,
                "scanner": ["A", "B"][int(rng.integers(2))],
                "age_years": None if number % 4 == 0 else float(rng.uniform(0, 20)),
                "contrast": True,
            }
        }
        for number, (label, count) in enumerate(zip(labels, slices, strict=True))
    ]
    return records, quiet(write_list(folder, {"fold 0": records[::2], "the test part": records[1::2]}))


def groups_of(records, get):
    values = [[get(one) for one in records if one["label"] == label] for label in range(3)]
    return [[value for value in group if value is not None] for group in values]


def test_tables_equal_counts_by_hand(tmp_path):
    records, result = cohort_of_numbers(tmp_path)
    for label, name in enumerate(CLASSES):
        own = [one for one in records if one["label"] == label]
        assert result["class_by_place"][name] == {"fold 0": 10, "the test part": 10}
        ages = [one["confounders"]["age_years"] for one in own if one["confounders"]["age_years"] is not None]
        assert result["confounders"]["age_years"][name] == {
            "patients": 20, "n": 15, "median": np.median(ages), "min": min(ages), "max": max(ages),
        }  # fmt: skip
        scanners = [one["confounders"]["scanner"] for one in own]
        assert result["confounders"]["scanner"][name]["counts"] == {s: scanners.count(s) for s in "AB"}
        pixel = result["confounders"]["in_plane_mm"][name]
        assert (pixel["n"], pixel["median"]) == (16, pytest.approx(0.45))
    assert f"[{min(ages):.4g}-{max(ages):.4g}] (n=15)" in audit_text(result)


def test_tests_equal_scipys(tmp_path):
    records, result = cohort_of_numbers(tmp_path)
    tests = {test["confounder"]: test for test in result["association"]}
    getters = {
        "slices": lambda c: c["slices"],
        "age_years": lambda c: c["age_years"],
        "slice_mm": lambda c: c["spacing_mm"] and c["spacing_mm"][2],
    }
    for name, get in getters.items():
        groups = groups_of(records, lambda one, get=get: get(one["confounders"]))
        expected = kruskal(*groups)
        assert tests[name]["p"] == pytest.approx(expected.pvalue)
        assert tests[name]["statistic"] == pytest.approx(expected.statistic)
        assert tests[name]["n"] == sum(map(len, groups))
    groups = groups_of(records, lambda one: one["confounders"]["scanner"])
    expected = chi2_contingency([[group.count(s) for s in "AB"] for group in groups], correction=False)
    assert tests["scanner"]["statistic"] == pytest.approx(expected.statistic)
    assert tests["scanner"]["p"] == pytest.approx(expected.pvalue, abs=0.05)  # permutations, not the limit law
    assert tests["contrast"]["skipped"] == tests["in_plane_mm"]["skipped"] == "does not vary"


def test_adjusted_p_values_are_holms(tmp_path):
    _, result = cohort_of_numbers(tmp_path, by_class=True)
    done = sorted((test for test in result["association"] if test["p"] is not None), key=lambda test: test["p"])
    expected = np.maximum.accumulate([min(1, test["p"] * (4 - rank)) for rank, test in enumerate(done)])
    np.testing.assert_allclose([test["p_holm"] for test in done], expected)
    assert {test["tests"] for test in done} == {4}


def test_slice_counts_that_follow_the_class_warn(tmp_path):
    _, result = cohort_of_numbers(tmp_path, by_class=True)
    assert any("slice count differs" in text and "not disease" in text for text in result["warnings"])
    assert any("without looking at the heart" in text for text in result["warnings"])
    prediction = result["prediction"]
    assert prediction["accuracy"]["low"] > prediction["majority"]["high"]
    right = round(prediction["accuracy"]["value"] * 60)
    assert (prediction["accuracy"]["low"], prediction["accuracy"]["high"]) == wilson_interval(right, 60)
    assert (prediction["majority"]["value"], prediction["n"]) == (pytest.approx(1 / 3), 60)
    assert not has_leakage(result)


@pytest.mark.parametrize("seed", [1, 3, 4])
@pytest.mark.parametrize("options", [{}, {"by_class": True, "shuffled": True}], ids=["unrelated", "labels shuffled"])
def test_nothing_warns_when_classes_do_not_differ(options, seed, tmp_path):
    _, result = cohort_of_numbers(tmp_path, seed, **options)
    assert result["warnings"] == []
    assert result["prediction"]["accuracy"]["low"] < result["prediction"]["majority"]["value"]


def test_too_few_patients_or_nothing_varying_is_said(tmp_path):
    same = {"slices": 100, "spacing_mm": None, "scanner": None, "age_years": None, "contrast": None}
    few = [record(f"{n}.nii.gz", str(n), n % 3, confounders=same) for n in range(6)]
    result = quiet(write_list(tmp_path, {"fold 0": few}))
    assert "fewer than two classes" in result["prediction"]["skipped"]
    assert all(test["p"] is None for test in result["association"])
    many = [record(f"{n}.nii.gz", str(n), n % 3, confounders=same) for n in range(30)]
    result = quiet(write_list(tmp_path, {"fold 0": many}))
    assert result["prediction"]["skipped"] == "no confounder varies"
    assert "not tested, does not vary" in audit_text(result)


def test_slices_and_contrast_come_from_the_file_where_the_datalist_has_none(tmp_path):
    bright = np.full((12, 12, 9), 1050, np.int16)
    bright[:3] = 1400
    bright[-1] = 0
    write_scan(tmp_path / "bright.nii.gz", bright)
    dark = bright.copy()
    dark[:3] = 1080
    write_scan(tmp_path / "dark.nii.gz", dark)
    places = {"fold 0": [record("bright.nii.gz", "1", 0), record("dark.nii.gz", "2", 1)]}
    table = quiet(write_list(tmp_path, places))["confounders"]
    assert [table["slices"][name]["median"] for name in CLASSES[:2]] == [9, 9]
    assert [table["contrast"][name]["counts"] for name in CLASSES[:2]] == [{"yes": 1}, {"no": 1}]
    places["fold 0"][0]["confounders"] = {"slices": 5, "spacing_mm": None, "scanner": None, "contrast": None}
    table = quiet(write_list(tmp_path, places))["confounders"]
    assert table["slices"][CLASSES[0]]["median"] == 5
    assert table["contrast"][CLASSES[0]]["n"] == 0


def test_a_patient_counts_once_in_the_confounders(tmp_path):
    records = [record(f"{n}.nii.gz", "1", 0, confounders={"slices": 100 + n}) for n in range(3)]
    table = quiet(write_list(tmp_path, {"fold 0": records}))["confounders"]
    assert table["slices"][CLASSES[0]] == {"patients": 1, "n": 1, "median": 100, "min": 100, "max": 100}
