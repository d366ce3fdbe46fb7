"""Scans and a table to a split: nobody in two places, all faults said at once, no split half written or replaced."""

import csv
import hashlib
import json
import re
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from openpyxl import Workbook
from sklearn.utils.class_weight import compute_class_weight
from tiny_cohort import voxels, write_cohort, write_rows, write_scan

from monai_chd.cli import main
from monai_chd.cohort.datalist import Choices, class_weights, dataset_dir, load_cases, prepare, read_datalist
from monai_chd.cohort.overview import report, summary
from monai_chd.labels import CLASSES, FLAGS
from monai_chd.nifti import read_volume, voxel_digest
from monai_chd.scans.finding import find_inputs, find_nifti, find_scans


def with_all_flags(*header):
    return [*header, *(flag for flag in FLAGS if flag not in header)]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    """36 patients, 12 a class; not to be changed."""
    return write_cohort(tmp_path_factory.mktemp("source") / "cohort", 36)


@pytest.fixture(scope="module")
def work(cohort, tmp_path_factory) -> Path:
    """Where the cohort was prepared with the defaults; not to be changed."""
    out = tmp_path_factory.mktemp("work")
    prepare(cohort, out)
    return out


@pytest.fixture
def small(tmp_path) -> Path:
    """9 patients (1001…1009), 3 a class, to be spoilt."""
    return write_cohort(tmp_path / "cohort", 9)


def prepare_small(source: Path, out: Path, **choices) -> dict:
    return prepare(source, out, Choices(**{"folds": 2, "test_fraction": 0.33, **choices}))


def patients_by_place(datalist: dict) -> dict[object, set[str]]:
    places = defaultdict(set)
    for record in datalist["training"]:
        places[record["fold"]].add(record["patient"])
    for record in datalist["test"]:
        places["test"].add(record["patient"])
    return dict(places)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*")) if folder.exists() else []


def excluded_rows(out: Path) -> list[dict[str, str]]:
    with (out / "excluded.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def rewrite_table(folder: Path, *rows: tuple, header: tuple[str, ...] = ("patient", "class")) -> None:
    write_rows(folder / "cases.csv", header, rows)


SMALL_ROWS = [(1001 + i, CLASSES[i % 3]) for i in range(9)]


# the split


def test_five_folds_and_a_test_part_of_a_fifth_hold_every_patient_once(cohort, work):
    datalist = json.loads((work / "datalist.json").read_text())
    places = patients_by_place(datalist)
    assert set(places) == {0, 1, 2, 3, 4, "test"}
    everyone = [patient for patients in places.values() for patient in patients]
    assert sorted(everyone) == [str(1001 + i) for i in range(36)]
    assert len(datalist["test"]) == 8  # the ceiling of 36 * 0.2


def test_every_class_is_in_each_fold_and_part_in_equal_shares(work):
    datalist = json.loads((work / "datalist.json").read_text())
    counts = Counter((record["label"], record["fold"]) for record in datalist["training"])
    counts |= Counter((record["label"], "test") for record in datalist["test"])
    for label in range(3):
        assert {counts[label, fold] for fold in range(5)} <= {1, 2}
        assert counts[label, "test"] in (2, 3)


def test_records_name_file_class_offset_and_hash(cohort, work):
    datalist = json.loads((work / "datalist.json").read_text())
    assert datalist["classes"] == ["Cyanotic", "Non-Cyanotic", "Normal"]
    for record in datalist["training"] + datalist["test"]:
        image = cohort / record["image"]
        assert image.name == f"ct_{record['patient']}_image.nii.gz"
        assert record["label"] == (int(record["patient"]) - 1001) % 3
        assert record["sha256"] == hashlib.sha256(image.read_bytes()).hexdigest()
        assert record["voxels"] == voxel_digest(read_volume(image))
        assert record["hu_offset"] == -1024
        assert record["flags"] == []
    assert not any("fold" in record for record in datalist["test"])


def test_scans_that_do_not_say_are_called_neither_synthetic_nor_real(work):
    content = json.loads((work / "datalist.json").read_text())
    assert all("synthetic" not in record for part in ("training", "test") for record in content[part])
    assert not any("synthetic" in note or "real" in note for note in content["notes"])


def test_the_same_seed_gives_the_same_file_and_another_seed_another_split(cohort, work, tmp_path):
    prepare(cohort, tmp_path / "same" / "work")
    first, again = (work / "datalist.json").read_text(), (tmp_path / "same" / "work" / "datalist.json").read_text()
    assert {**json.loads(first), "root": ""} == {**json.loads(again), "root": ""}
    other = prepare(cohort, tmp_path / "other", Choices(seed=43))
    assert patients_by_place(other) != patients_by_place(json.loads(first))


def test_the_seed_draws_the_folds_too_not_only_the_test_part(small, tmp_path):
    draws = [prepare_small(small, tmp_path / str(seed), folds=3, test_fraction=0, seed=seed) for seed in range(4)]
    assert len({json.dumps(draw["training"]) for draw in draws}) > 1


def test_the_split_does_not_depend_on_the_order_of_the_table(cohort, work, tmp_path):
    lines = (cohort / "cases.csv").read_text().splitlines()
    table = tmp_path / "turned.csv"
    table.write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    turned = prepare(cohort, tmp_path / "work", Choices(table=table))
    assert turned["training"] == json.loads((work / "datalist.json").read_text())["training"]


def test_all_scans_of_a_patient_stay_together(small, tmp_path):
    for number in (1001, 1002, 1006):
        write_scan(small / "second" / f"ct_{number}_b.nii.gz", 2 * number)
    datalist = prepare_small(small, tmp_path / "work")
    records = datalist["training"] + datalist["test"]
    assert Counter(record["patient"] for record in records)["1001"] == 2
    assert len(records) == 12
    places = patients_by_place(datalist)
    assert sum(map(len, places.values())) == 9


def test_without_a_test_part_everything_is_training(small, tmp_path):
    datalist = prepare_small(small, tmp_path / "work", folds=3, test_fraction=0)
    assert datalist["test"] == []
    assert {fold: len(p) for fold, p in patients_by_place(datalist).items()} == {0: 3, 1: 3, 2: 3}


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"folds": 1}, "folds: expected 2 or more, got 1"),
        ({"folds": 0}, "folds: expected 2 or more, got 0"),
        ({"test_fraction": 1}, "test fraction: expected 0 or more and below 1, got 1"),
        ({"test_fraction": -0.1}, "test fraction: expected 0 or more and below 1, got -0.1"),
        ({"test_fraction": float("nan")}, "test fraction: expected 0 or more and below 1, got nan"),
        ({"seed": -1}, "seed: expected 0 to 4294967295, got -1"),
    ],
)
def test_a_choice_out_of_range_is_refused_before_any_scan_is_read(small, tmp_path, choice, message):
    (small / "ct_1001_image.nii.gz").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=re.escape(message)):
        prepare_small(small, tmp_path / "work", **choice)
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("choice", [{"folds": 4}, {"test_fraction": 0.05}, {"test_fraction": 0.9}])
def test_a_class_with_too_few_patients_is_named_with_its_counts(small, tmp_path, choice):
    with pytest.raises(
        ValueError, match=r"too few patients for .* folds .*: Cyanotic has 3 patients, \d of them for training"
    ):
        prepare_small(small, tmp_path / "work", **choice)
    assert files_in(tmp_path / "work") == []


# joining rows and scans


def test_a_workbook_of_flags_leaves_undetermined_patients_out_with_the_reason(tmp_path):
    book, folder = Workbook(), tmp_path / "cohort"
    flags = {"ToF": "1001 1002 1003", "VSD": "1004 1005 1006", "": "1007 1008 1009", "DORV": "1010", "APVC": "1011"}
    book.active.append(with_all_flags("index", "VSD", "ToF", "DORV", "APVC"))
    for flag, ids in flags.items():
        for number in map(int, ids.split()):
            write_scan(folder / f"ct_{number}_image.nii.gz", number)
            book.active.append([number, *(1 if flag == name else None for name in ("VSD", "ToF", "DORV", "APVC"))])
    book.save(folder / "imageCHD_dataset_info.xlsx")
    datalist = prepare_small(folder, tmp_path / "work")
    records = {record["patient"]: record for record in datalist["training"] + datalist["test"]}
    assert sorted(records) == [str(n) for n in range(1001, 1010)]
    assert (records["1001"]["label"], records["1001"]["flags"]) == (0, ["ToF"])
    assert (records["1004"]["label"], records["1007"]["label"], records["1007"]["flags"]) == (1, 2, [])
    left_out = excluded_rows(tmp_path / "work")
    assert [(row["patient"], row["image"], row["flags"]) for row in left_out] == [
        ("1010", "ct_1010_image.nii.gz", "DORV"),
        ("1011", "ct_1011_image.nii.gz", "APVC"),
    ]
    assert all(row["reason"].startswith("undetermined: ") for row in left_out)
    text = report(datalist, tmp_path / "work")
    assert "left out: 2" in text and "  2 undetermined" in text


def test_label_maps_and_shadow_files_are_no_scans(small, tmp_path):
    for name in ("ct_2001_label.nii.gz", "ct_1001_seg.nii.gz", "ct-1002-mask.nii", "._ct_1001_image.nii.gz", "a.txt"):
        (small / name).write_bytes(b"not a scan")
    assert len(find_scans(find_nifti(small))) == 9
    prepare_small(small, tmp_path / "work")


def test_ids_7_and_07_are_one_scan_and_refused_as_two_patients(small, tmp_path):
    write_scan(small / "ct_7.nii.gz", 7)
    rewrite_table(small, *SMALL_ROWS, ("07", "Normal"))
    datalist = prepare_small(small, tmp_path / "one")
    assert "07" in {record["patient"] for record in datalist["training"] + datalist["test"]}
    rewrite_table(small, *SMALL_ROWS, ("07", "Normal"), ("7", "Normal"))
    faults = r"2 bad rows or scans .*\n  row 11: id 07 = 7 stands in 2 rows\n  row 12: id 07 = 7 stands in 2 rows\n"
    with pytest.raises(ValueError, match=faults):
        prepare_small(small, tmp_path / "two")


@pytest.mark.parametrize("patient", ["", "patient"])
def test_scans_of_one_patient_are_in_one_place_under_the_first_of_its_spellings(small, tmp_path, patient):
    rows = [(f"ct_{n}_image.nii.gz", str(n), label) for n, label in SMALL_ROWS]
    for name in ("07", "7", "007"):
        write_scan(small / f"{name}.nii", int(name, 8) + len(name))
        rows.append((f"{name}.nii", f"{name} ", "Normal"))
    columns = ("image", "patient", "class") if patient else ("image", "class")
    rewrite_table(small, *[row if patient else row[::2] for row in rows], header=columns)
    for seed in range(4):
        datalist = prepare(small, tmp_path / f"{seed}", Choices(folds=2, test_fraction=0.3, seed=seed))
        own = [record for part in ("training", "test") for record in datalist[part] if record["image"][0] in "07"]
        assert [record["patient"] for record in own] == ["07"] * 3
        assert len({record.get("fold") for record in own}) == 1
        assert read_datalist(tmp_path / f"{seed}" / "datalist.json") == datalist


def test_a_table_of_paths_may_name_patients_and_lie_elsewhere(small, tmp_path):
    rows = [(f"ct_{n}_image.nii.gz", f"p{n // 2}", CLASSES[n // 2 % 3]) for n in range(1001, 1010)]
    names = {f"p{n // 2}" for n in range(1001, 1010)}
    write_scan(small / "deeper" / "x.nii", 5)
    rows.append((str(small / "deeper" / "x.nii"), "p500", CLASSES[500 % 3]))
    (small / "cases.csv").unlink()
    extra = [write_scan(tmp_path / "elsewhere" / f"{i}.nii", i) for i in range(3)]
    rows += [(str(path), f"e{i}", CLASSES[i]) for i, path in enumerate(extra)]
    table = write_rows(tmp_path / "paths.csv", ["image", "patient", "class"], rows)
    datalist = prepare(small, tmp_path / "work", Choices(table=table, folds=2, test_fraction=0))
    records = datalist["training"]
    assert {record["patient"] for record in records} == names | {"e0", "e1", "e2"}
    assert len(records) == 13
    images = {record["image"] for record in records}
    assert {"deeper/x.nii", "ct_1001_image.nii.gz", "../elsewhere/0.nii"} <= images
    load_cases(tmp_path / "work" / "datalist.json", dataset_dir(tmp_path / "work" / "datalist.json"))


def test_a_table_of_paths_without_patients_takes_each_file_for_one(small, tmp_path):
    rows = [(f"ct_{n}_image.nii.gz", CLASSES[n % 3]) for n in range(1001, 1010)]
    rewrite_table(small, *rows, header=("path", "class"))
    datalist = prepare_small(small, tmp_path / "work")
    assert "ct_1001_image" in {record["patient"] for record in datalist["training"] + datalist["test"]}


def test_a_path_that_leads_nowhere_is_a_bad_row(small, tmp_path):
    rows = [(f"ct_{n}_image.nii.gz", label) for n, label in SMALL_ROWS]
    rewrite_table(small, *rows, ("gone/x.nii", "Normal"), header=("image", "class"))
    with pytest.raises(ValueError, match=r"1 bad rows .*\n  row 11: no scan found for gone/x\.nii\n"):
        prepare_small(small, tmp_path / "work")


def test_linked_folders_hold_scans_like_others(small, tmp_path):
    before = prepare_small(small, tmp_path / "plain")
    folder = tmp_path / "linked"
    folder.mkdir()
    shutil.move(small / "cases.csv", folder)
    (folder / "scans").symlink_to(small)
    (small / "back").symlink_to(folder)
    assert (
        main(["prepare", str(folder), "--out", str(tmp_path / "work"), "--folds", "2", "--test-fraction", "0.33"]) == 0
    )
    after = read_datalist(tmp_path / "work" / "datalist.json")
    own = {
        part: [{**r, "image": r["image"].removeprefix("scans/")} for r in after[part]] for part in ("training", "test")
    }
    assert own == {part: before[part] for part in own}
    assert [Path(case["image"]).name for case in find_inputs(folder)] == [f"ct_{n}_image.nii.gz" for n, _ in SMALL_ROWS]


@pytest.mark.parametrize("name", ["ct_1005_image.nii.gz", "ct_2000_image.nii.gz", "more scans"])
def test_dead_links_stop_prepare_or_are_left_out_and_listed(small, tmp_path, name):
    (small / name).unlink(missing_ok=True)
    (small / name).symlink_to("/gone/store")
    dead = f"{small / name}: a dead link (to /gone/store); bring back what it leads to, or remove it"
    with pytest.raises(ValueError, match=re.escape(f"1 bad rows or scans in {small} with cases.csv:\n  {dead}\n")):
        prepare_small(small, tmp_path / "work")
    prepare_small(small, tmp_path / "work", skip_bad=True, test_fraction=0)
    (row,) = excluded_rows(tmp_path / "work")
    assert (row["image"], row["reason"]) == (name, dead)


def test_copies_stop_prepare_or_are_left_out_and_listed(small, tmp_path):
    first, second = small / "ct_1001_image.nii.gz", small / "ct_1002_image.nii.gz"
    write_scan(small / "ct_1001_image (1).nii.gz", 99)
    (small / "backup").mkdir()
    shutil.copy(second, small / "backup" / "ct_1002_old.nii.gz")
    before = prepare_small(small, tmp_path / "work", skip_bad=True)
    kept = {record["image"] for part in ("training", "test") for record in before[part]}
    assert {first.name, second.name} < kept and len(kept) == 9
    texts = {
        "ct_1001_image (1).nii.gz": "ct_1001_image (1).nii.gz: a copy of ct_1001_image.nii.gz by its name; remove or rename",
        "backup/ct_1002_old.nii.gz": "the same voxels in ct_1002_image.nii.gz and backup/ct_1002_old.nii.gz; keep one",
    }
    rows = {row["image"]: row["reason"] for row in excluded_rows(tmp_path / "work")}
    assert rows.keys() == texts.keys() and all(rows[name].startswith(text) for name, text in texts.items())
    with pytest.raises(ValueError, match="2 bad rows or scans") as caught:
        prepare_small(small, tmp_path / "strict")
    assert all(text in str(caught.value) for text in texts.values())


def test_hidden_folders_are_no_part_of_a_cohort_and_are_counted(small, tmp_path, caplog):
    caplog.set_level("INFO", "monai_chd")
    for folder in (".Trash-1000", ".git", "a/.snapshot/hourly", "__MACOSX"):
        (small / folder).mkdir(parents=True)
        shutil.copy(small / "ct_1001_image.nii.gz", small / folder / "ct_1001_b.nii.gz")
        shutil.copy(small / "cases.csv", small / folder)
    datalist = prepare_small(small, tmp_path / "work")
    assert sum(len(datalist[part]) for part in ("training", "test")) == 9
    assert len(find_inputs(small)) == 9
    line = "left out, since they are hidden: 4 folders or files (.Trash-1000, .git, __MACOSX, a/.snapshot)"
    assert caplog.messages == [line] * 2


def test_a_scan_behind_a_link_is_named_by_id_or_path_alike(small, tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    for scan in sorted(small.glob("*.nii.gz")):
        shutil.move(scan, store / f"{scan.name[3:7]}.bin")
        scan.symlink_to(store / f"{scan.name[3:7]}.bin")
    by_id = prepare_small(small, tmp_path / "ids")
    rows = [(f"ct_{n}_image.nii.gz", n, label) for n, label in SMALL_ROWS]
    rewrite_table(small, *rows, header=("image", "patient", "class"))
    by_path = prepare_small(small, tmp_path / "paths")
    assert by_path == by_id
    link = tmp_path / "link"
    link.symlink_to(small)
    rewrite_table(small, *[(link / name, n, label) for name, n, label in rows], header=("image", "patient", "class"))
    assert prepare_small(link, tmp_path / "absolute") == by_id


# faults


def spoil(folder: Path) -> dict[str, str]:
    """Make one of every kind of fault in a cohort of ids 1001…; returns what the error must say of each, by name."""
    sound = [(n, CLASSES[n % 3]) for n in range(1001, 1010)]
    book = Workbook()
    book.active.append(with_all_flags("index", "VSD", "ToF"))
    for number, label in sound:
        book.active.append([number, int(label == "Non-Cyanotic"), int(label == "Cyanotic")])
    for row in ([1020, "yes", 0], [1021, 0, 0], [1022, 0, 0], [1022, 0, 0], [None, 1, 0]):
        book.active.append(row)
    for number in range(1030, 1036):
        book.active.append([number, 1, 0])
    (folder / "cases.csv").unlink()
    book.save(folder / "imageCHD_dataset_info.xlsx")
    for number in (1020, 1022, 1023):
        write_scan(folder / f"ct_{number}_image.nii.gz", number)
    whole = write_scan(folder / "ct_1030_image.nii.gz", 1030).read_bytes()
    (folder / "ct_1030_image.nii.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "ct_1031_image.nii.gz").write_bytes(write_scan(folder / "ct_1031.nii", 1031).read_bytes())
    (folder / "ct_1031.nii").unlink()
    values = voxels(1032).astype(np.float32)
    values[3, 3, 3] = np.nan
    write_scan(folder / "ct_1032_image.nii.gz", values)
    write_scan(folder / "ct_1033_image.nii.gz", 1033)
    write_scan(folder / "ct_1033_image.nii", 1033)
    write_scan(folder / "ct_1034_image.nii.gz", np.full((6, 6, 6), 300, np.int16))
    write_scan(folder / "ct_1035_image.nii.gz", np.zeros((6, 6, 6), np.int16) - 100)
    return {
        "1020": "VSD is 'yes'; expected 1, 0 or blank",
        "1021": "no scan found for 1021",
        "1022": "id 1022 stands in 2 rows",
        "row 15": "the id is empty",
        "1023": "the table has no row for this scan",
        "1030": "truncated or corrupt NIfTI",
        "1031": "named .nii.gz but not gzip-compressed",
        "1032": "1 of 1152 voxels are NaN or infinite",
        "1033": "readers disagree on which to open",
        "1034": "--hu-offset",
        "1035": "--hu-offset",
    }


def test_every_bad_row_and_scan_is_listed_in_one_error_and_nothing_is_written(small, tmp_path):
    faults = spoil(small)
    with pytest.raises(ValueError) as caught:
        prepare_small(small, tmp_path / "work")
    head, *lines, end = str(caught.value).split("\n")
    assert head.startswith("13 bad rows or scans in ")
    assert "leave them out with --skip-bad" in end
    for name, fault in faults.items():
        assert any(name in line and fault in line for line in lines), (name, lines)
    assert len(lines) == 13  # both rows of 1022 and both files of 1033
    assert files_in(tmp_path / "work") == []


def test_skip_bad_leaves_exactly_these_out_and_says_why(small, tmp_path):
    faults = spoil(small)
    datalist = prepare_small(small, tmp_path / "work", skip_bad=True)
    kept = {record["patient"] for record in datalist["training"] + datalist["test"]}
    assert kept == {str(n) for n in range(1001, 1010)}
    rows = excluded_rows(tmp_path / "work")
    assert len(rows) == 13
    for name, fault in faults.items():
        assert any(name in " ".join(row.values()) and fault in row["reason"] for row in rows)
    text = report(datalist, tmp_path / "work")
    assert "left out: 13" in text and "  2 row 13: id 1022" not in text
    assert "  1 row 12: no scan found for 1021" in text


def test_unreadable_cells_of_a_workbook_stop_prepare_at_once_or_are_left_out_with_their_address(small, tmp_path):
    (small / "cases.csv").unlink()
    book = Workbook()
    book.active.append(["index", "ToF", *(flag for flag in FLAGS if flag != "ToF")])
    for patient, label in SMALL_ROWS:
        book.active.append([patient, int(label == "Cyanotic"), int(label == "Non-Cyanotic")])
    book.active.append([1010, "#N/A"])
    book.active.append([1011, "=B2"])
    for patient in (1010, 1011):
        write_scan(small / f"ct_{patient}_image.nii.gz", patient)
    book.save(small / "cases.xlsx")
    faults = {"row 11 (id 1010)": "B11 (ToF) holds the error #N/A", "row 12 (id 1011)": "B12 (ToF) holds a formula"}
    with pytest.raises(ValueError) as caught:
        prepare_small(small, tmp_path / "work")
    assert all(re.search(re.escape(f"{row}: {fault}"), str(caught.value)) for row, fault in faults.items())
    prepare_small(small, tmp_path / "work", skip_bad=True)
    reasons = [row["reason"] for row in excluded_rows(tmp_path / "work")]
    assert len(reasons) == 2 and all(any(fault in reason for reason in reasons) for fault in faults.values())


def test_a_scan_of_two_patients_goes_to_neither_when_bad_ones_are_left_out(small, tmp_path):
    write_scan(small / "ct_1001_1002.nii.gz", 3)
    with pytest.raises(ValueError, match=r"ct_1001_1002\.nii\.gz: belongs to row 2 \(1001\) and row 3 \(1002\)"):
        prepare_small(small, tmp_path / "work")
    datalist = prepare_small(small, tmp_path / "work", skip_bad=True)
    assert all("1001_1002" not in record["image"] for record in datalist["training"] + datalist["test"])
    assert [row["image"] for row in excluded_rows(tmp_path / "work")] == ["ct_1001_1002.nii.gz"]


def test_one_image_in_two_rows_is_refused(small, tmp_path):
    rows = [(f"ct_{n}_image.nii.gz", label) for n, label in SMALL_ROWS]
    rewrite_table(small, *rows, rows[0], header=("image", "class"))
    with pytest.raises(ValueError, match=r"1 bad rows .*\n  ct_1001_image\.nii\.gz: belongs to row 2 .* and row 11 "):
        prepare_small(small, tmp_path / "work")


def test_a_patient_with_two_classes_is_listed_among_the_other_faults_and_left_out_whole(small, tmp_path):
    rows = [(f"ct_{n}_image.nii.gz", n, label) for n, label in SMALL_ROWS]
    write_scan(small / "b.nii.gz", 1)
    (small / "c.nii.gz").write_bytes(b"")
    rows += [("b.nii.gz", 1001, "Normal"), ("c.nii.gz", 1002, "Non-Cyanotic")]
    rewrite_table(small, *rows, header=("image", "patient", "class"))
    with pytest.raises(ValueError) as caught:
        prepare_small(small, tmp_path / "work")
    assert "patient 1001: has several classes (Cyanotic, Normal)" in str(caught.value)
    assert "c.nii.gz: the file is empty" in str(caught.value)
    datalist = prepare_small(small, tmp_path / "work", folds=2, test_fraction=0, skip_bad=True)
    assert "1001" not in {record["patient"] for record in datalist["training"]}
    left_out = [row["image"] for row in excluded_rows(tmp_path / "work") if row["patient"] == "1001"]
    assert left_out == ["ct_1001_image.nii.gz", "b.nii.gz"]


def test_the_same_scan_under_two_patients_is_refused(small, tmp_path):
    scans = sorted(small.glob("*_image.nii.gz"))
    shutil.copy(scans[3], scans[7])
    with pytest.raises(ValueError, match=r"the same scan .*: .*1004.* and .*1008.*; keep it under the right one"):
        prepare_small(small, tmp_path / "work")
    assert not (tmp_path / "work" / "datalist.json").exists()


def test_values_that_are_no_ct_need_an_offset_which_then_stands_in_every_record(small, tmp_path):
    for seed, scan in enumerate(sorted(small.glob("*.nii.gz"))):
        write_scan(scan, np.random.default_rng(seed).integers(0, 800, (12, 12, 8)).astype(np.int16))
    with pytest.raises(ValueError, match="9 bad rows or scans") as caught:
        prepare_small(small, tmp_path / "work")
    assert str(caught.value).count("--hu-offset N") == 9
    datalist = prepare_small(small, tmp_path / "work", hu_offset=0.0)
    assert {record["hu_offset"] for record in datalist["training"] + datalist["test"]} == {0.0}
    assert "intensity: 9 scans, HU = value +0" in report(datalist, tmp_path / "work")


def test_a_cine_stays_in_its_units_and_one_time_point_is_a_volume(small, tmp_path):
    write_scan(small / "ct_1001_image.nii.gz", np.full((6, 6, 4, 3), 300, np.int16))
    write_scan(small / "ct_1002_image.nii.gz", voxels(2, (12, 12, 8, 1)))
    datalist = prepare_small(small, tmp_path / "work")
    offsets = {record["patient"]: record.get("hu_offset") for record in datalist["training"] + datalist["test"]}
    assert (offsets["1001"], offsets["1002"]) == (None, -1024)
    assert "intensity: 1 scans, cine in arbitrary units" in report(datalist, tmp_path / "work")


def test_an_empty_folder_or_none(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty: no scan found; expected \.nii\.gz or \.nii files"):
        prepare(tmp_path / "empty", tmp_path / "work")
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder of scans"):
        prepare(tmp_path / "nowhere", tmp_path / "work")


def test_scans_without_a_table(small, tmp_path):
    (small / "cases.csv").unlink()
    with pytest.raises(FileNotFoundError, match="no table of diagnoses found"):
        prepare(small, tmp_path / "work")
    with pytest.raises(FileNotFoundError, match=r"mine\.csv: no such table"):
        prepare(small, tmp_path / "work", Choices(table=tmp_path / "mine.csv"))


def test_an_output_folder_that_is_a_file_is_refused_before_scans_are_read(small, tmp_path):
    (small / "ct_1001_image.nii.gz").write_bytes(b"damaged")
    (tmp_path / "work").write_text("mine")
    with pytest.raises(ValueError, match=r"work: cannot write there"):
        prepare_small(small, tmp_path / "work")
    assert (tmp_path / "work").read_text() == "mine"


def test_the_same_again_is_fine_and_a_different_split_never_replaces_the_first(small, tmp_path):
    out = tmp_path / "work"
    prepare_small(small, out)
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    prepare_small(small, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first
    for choice in ({"seed": 1}, {"test_fraction": 0}, {"folds": 3, "test_fraction": 0}):
        with pytest.raises(ValueError, match=r"datalist\.json: holds another split .*choose another --out"):
            prepare_small(small, out, **choice)
    write_scan(small / "ct_1001_image.nii.gz", 77)
    with pytest.raises(ValueError, match="holds another split"):
        prepare_small(small, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first


def test_a_folder_moved_with_its_datalist_still_works(small, tmp_path):
    prepare_small(small, tmp_path / "work")
    (tmp_path / "new").mkdir()
    for name in ("cohort", "work"):
        shutil.move(tmp_path / name, tmp_path / "new" / name)
    datalist = tmp_path / "new" / "work" / "datalist.json"
    assert Path(dataset_dir(datalist)) == tmp_path / "new" / "cohort"
    cases = load_cases(datalist, dataset_dir(datalist))
    assert all(Path(case["image"]).is_relative_to(tmp_path / "new") for part in cases.values() for case in part)
    link = tmp_path / "linked.json"
    link.symlink_to(datalist)
    assert dataset_dir(link) == dataset_dir(datalist)


# what is told


def test_the_report_counts_by_class_and_fold_and_says_how_intensities_were_read(cohort, work):
    datalist = json.loads((work / "datalist.json").read_text())
    table = [line.split() for line in summary(datalist).splitlines()]
    assert table[0][:3] == ["class", "fold", "0"]
    assert table[0][-3:] == ["training", "test", "all"]
    for index, row in enumerate(table[1:4]):
        counts = list(map(int, row[1:]))
        training = [r["fold"] for r in datalist["training"] if r["label"] == index]
        assert counts[:5] == [training.count(fold) for fold in range(5)]
        assert counts[5:] == [len(training), 12 - len(training), 12]
    assert table[4] == ["all", *[str(sum(int(row[i]) for row in table[1:4])) for i in range(1, 9)]]
    text = report(datalist, work)
    assert "left out: 0\n" in text
    assert "intensity: 36 scans, HU = value -1024" in text
    assert "Normal means that the table lists no diagnosis" in text
    assert text.endswith(f"datalist: {work / 'datalist.json'}")


# reading a datalist back


def hand_made(**changes) -> dict:
    records = [
        {"image": f"{i}.nii.gz", "label": i % 3, "patient": f"p{i}", "fold": i // 3, "sha256": f"{i:064x}"}
        for i in range(6)
    ]
    test = [{"image": "t.nii.gz", "label": 0, "patient": "t"}]
    return {"root": ".", "classes": list(CLASSES), "training": records, "test": test, **changes}


def changed(part: str, index: int, **keys) -> dict:
    content = hand_made()
    record = content[part][index]
    record.update(keys)
    content[part][index] = {key: value for key, value in record.items() if value != "DELETE"}
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no json", "not a datalist, since it is not JSON (Expecting value"),
        ("[]", "not a datalist: expected an object, got []; make it again"),
        ("null", "not a datalist: expected an object, got null"),
        (hand_made(training=None), "not a datalist: training: expected a list, got null"),
        ({"root": ".", "classes": list(CLASSES), "training": []}, 'not a datalist: key "test" is missing (cases held out)'),
        ({"classes": list(CLASSES), "training": [], "test": []}, 'not a datalist: key "root" is missing (folder'),
        (hand_made(root=None), "not a datalist: root: expected text, got null"),
        (hand_made(classes=["Normal", "Cyanotic", "Non-Cyanotic"]), "expected classes ['Cyanotic', 'Non-Cyanotic'"),
        (hand_made(training=["a.nii.gz"]), 'not a datalist: training 1: expected an object, got "a.nii.gz"'),
        (changed("training", 0, fold="DELETE"), 'not a datalist: training record 0.nii.gz, key "fold" is missing'),
        (changed("test", 0, label="DELETE", patient="DELETE"), 'not a datalist: test record t.nii.gz, key "label" is missing'),
        (changed("training", 1, image=None), "not a datalist: training 2, image: expected text, got null"),
        (changed("training", 1, label=3), "training record 1.nii.gz, label: expected 0, 1 or 2, the place of its class"),
        (changed("training", 1, label=-1), "training record 1.nii.gz, label: expected 0, 1 or 2, the place of its class"),
        (changed("training", 1, label="Normal"), 'training record 1.nii.gz, label: expected a whole number, got "Normal"'),
        (changed("training", 1, label=True), "training record 1.nii.gz, label: expected a whole number, got true"),
        (changed("training", 1, fold="0"), 'not a datalist: training record 1.nii.gz, fold: expected a whole number, got "0"'),
        (changed("training", 1, fold=None), "not a datalist: training record 1.nii.gz, fold: expected a whole number, got null"),
        (changed("training", 1, fold=-1), "not a datalist: training record 1.nii.gz, fold: expected 0 or more, the fold of"),
        (changed("training", 1, label=1.0), "not a datalist: training record 1.nii.gz, label: expected a whole number, got 1.0"),
        (changed("training", 1, patient="$x"), 'not a datalist: training record 1.nii.gz, patient: expected a whole number'),
        (changed("training", 1, patient=None), "not a datalist: training record 1.nii.gz, patient: expected a whole number, or"),
        (changed("training", 1, patient=" "), "not a datalist: training record 1.nii.gz, patient: expected a whole number, or"),
        (changed("test", 0, image="%x.json::a"), "not a datalist: test 1, image: expected the path of a scan, relative to root:"),
        (changed("test", 0, flags=["@a"]), "not a datalist: test record t.nii.gz, flags 1: expected text that begins with none"),
        (changed("test", 0, _target_="a"), 'not a datalist: test record t.nii.gz, unknown key "_target_"; known: image, label'),
        (hand_made(imports=["$import os"]), 'not a datalist: unknown key "imports"; known: root, classes,'),
        ('{"root": ".", "root": ""}', 'not a datalist, since it is not JSON (key "root" stands in it twice)'),
        ('{"root": NaN}', "not a datalist, since it is not JSON (NaN is no JSON number)"),
        (changed("training", 1, patient="p5"), "patients in more than one place: p5 (fold 0 and fold 1)"),
        (changed("test", 0, patient="p5"), "patients in more than one place: p5 (fold 1 and the test part)"),
        (changed("training", 1, patient=" p5", fold=0), "patients in more than one place: p5 (fold 0 and fold 1)"),
        (changed("training", 1, patient="p0", fold=0, label=2), "patients whose scans have different classes: p0 (Cyanotic and"),
        (changed("test", 0, image="5.nii.gz"), "images that stand in it more than once: 5.nii.gz"),
    ],
)  # fmt: skip
def test_a_wrong_datalist_is_refused_with_the_record(tmp_path, content, message):
    path = tmp_path / "datalist.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=re.escape(f"{path}: ") + "(not a datalist: )?" + re.escape(message)):
        read_datalist(path)


def test_ids_that_are_numbers_and_text_are_one_patient(tmp_path):
    content = changed("training", 0, patient=5)
    content["test"][0]["patient"] = "5"
    (tmp_path / "datalist.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"5 \(fold 0 and the test part\)"):
        read_datalist(tmp_path / "datalist.json")
    content["test"][0]["patient"] = "05"
    (tmp_path / "datalist.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"5 = 05 \(fold 0 and the test part\)"):
        read_datalist(tmp_path / "datalist.json")


def test_a_patient_has_one_spelling_in_what_is_read(tmp_path):
    content = hand_made()
    for number, patient in enumerate((5, "05", " 5")):
        content["training"][number].update(patient=patient, fold=0, label=1)
    (tmp_path / "datalist.json").write_text(json.dumps(content))
    read = read_datalist(tmp_path / "datalist.json")
    assert [record["patient"] for record in read["training"][:4]] == ["5", "5", "5", "p3"]


def test_a_missing_datalist_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such datalist; make one with `monai-chd prepare"):
        read_datalist(tmp_path / "datalist.json")


def test_what_was_written_reads_back(work):
    assert read_datalist(work / "datalist.json") == json.loads((work / "datalist.json").read_text())


# cases of a fold


def test_each_fold_parts_the_training_in_two_and_all_folds_validate_everyone_once(cohort, work):
    path = work / "datalist.json"
    training = {record["image"]: record for record in read_datalist(path)["training"]}
    validated = []
    for fold in range(5):
        parts = load_cases(path, dataset_dir(path), fold)
        names = {part: {Path(case["image"]).name for case in cases} for part, cases in parts.items()}
        assert names["train"] | names["validate"] == set(training)
        assert not names["train"] & names["validate"]
        assert names["validate"] == {image for image, record in training.items() if record["fold"] == fold}
        assert len(parts["test"]) == 8 and not names["test"] & set(training)
        validated += names["validate"]
    assert sorted(validated) == sorted(training)


def test_cases_have_absolute_paths_and_text_that_a_batch_can_hold(cohort, work):
    parts = load_cases(work / "datalist.json", dataset_dir(work / "datalist.json"))
    for case in [case for cases in parts.values() for case in cases]:
        assert Path(case["image"]).is_absolute() and Path(case["image"]).is_file()
        assert isinstance(case["patient"], str) and isinstance(case["flags"], str)
        assert case["label"] == (int(case["patient"]) - 1001) % 3


def test_the_folder_of_scans_can_be_named(cohort, work, tmp_path):
    shutil.copytree(cohort, tmp_path / "copy")
    parts = load_cases(work / "datalist.json", tmp_path / "copy", 1)
    assert all(Path(case["image"]).parent == tmp_path / "copy" for cases in parts.values() for case in cases)


def test_images_that_are_not_there_are_listed(work, cohort, tmp_path):
    shutil.copytree(cohort, tmp_path / "copy")
    for number in (1001, 1002):
        (tmp_path / "copy" / f"ct_{number}_image.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"2 scans of .* give their folder with --dataset_dir") as caught:
        load_cases(work / "datalist.json", tmp_path / "copy")
    assert "ct_1001_image.nii.gz" in str(caught.value) and "ct_1002_image.nii.gz" in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"36 scans of .* ct_1005_image\.nii\.gz and 31 more; give"):
        load_cases(work / "datalist.json", tmp_path)


@pytest.mark.parametrize("fold", [5, -1, "0", None])
def test_a_fold_that_is_not_there(work, fold):
    with pytest.raises(ValueError, match=re.escape("fold: expected one of [0, 1, 2, 3, 4]") + f".*got {fold!r}"):
        load_cases(work / "datalist.json", dataset_dir(work / "datalist.json"), fold)


# class weights


@pytest.mark.parametrize("counts", [(1, 1, 1), (3, 5, 2), (36, 40, 21)])
def test_class_weights_are_scikit_learns_balanced_ones(counts):
    labels = np.repeat([0, 1, 2], counts)
    weights = class_weights([{"label": int(label)} for label in np.random.default_rng(0).permutation(labels)])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-6)
    assert sum(w * c for w, c in zip(weights.tolist(), counts, strict=True)) == pytest.approx(sum(counts))


@pytest.mark.parametrize(
    ("labels", "absent"), [((0, 1), "Normal"), ((2, 2), "Cyanotic, Non-Cyanotic"), ((), "Cyanotic,")]
)
def test_a_class_without_a_case_has_no_weight(labels, absent):
    with pytest.raises(ValueError, match=f"no case of {absent}"):
        class_weights([{"label": label} for label in labels])


# inputs of inference


def test_inputs_are_a_file_or_all_scans_of_a_folder_and_what_is_left_out_is_logged(small, caplog):
    caplog.set_level("INFO", "monai_chd")
    (small / "ct_1001_label.nii.gz").touch()
    one = small / "ct_1001_image.nii.gz"
    assert find_inputs(one) == [{"image": str(one)}]
    assert find_inputs(str(small)) == [{"image": str(small / f"ct_{n}_image.nii.gz")} for n in range(1001, 1010)]
    assert caplog.messages == ["left out, since their names say label map: ct_1001_label.nii.gz"]
    with pytest.raises(FileNotFoundError, match="no such file or folder; name a NIfTI file"):
        find_inputs(small / "nothing.nii")


def test_a_dead_link_is_an_input_whose_reading_says_so(tmp_path):
    for name in ("ct_1.nii.gz", "more"):
        (tmp_path / name).symlink_to("/gone")
    (tmp_path / "ct_1_label.nii.gz").symlink_to("/gone")
    cases = find_inputs(tmp_path)
    assert cases == [{"image": str(tmp_path / "ct_1.nii.gz")}, {"image": str(tmp_path / "more")}]
    for case in cases:
        with pytest.raises(FileNotFoundError, match=r"a dead link \(to /gone\); bring back"):
            read_volume(case["image"])
    with pytest.raises(FileNotFoundError, match=r"ct_1\.nii\.gz: a dead link \(to /gone\)"):
        find_inputs(tmp_path / "ct_1.nii.gz")


def test_a_read_is_of_the_whole_file(small, tmp_path):
    """A wrong checksum at the very end, which a lazy reader never sees."""
    scan = small / "ct_1003_image.nii.gz"
    content = bytearray(scan.read_bytes())
    content[-6] ^= 1
    scan.write_bytes(bytes(content))
    assert nib.load(scan).shape == (12, 12, 8)
    with pytest.raises(ValueError, match=r"ct_1003_image\.nii\.gz: truncated or corrupt"):
        prepare_small(small, tmp_path / "work")
