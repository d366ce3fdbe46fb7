"""From the files of whole cohorts to a datalist: ImageCHD with its oddities, and layouts like HVSMR-2.0's and ACDC's."""

import csv
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tiny_cohort import write_cohort, write_rows, write_scan
from tiny_imagechd import info_row, known_flags, label_map, write_diagnoses, write_imagechd, write_info

from monai_chd.cli import main
from monai_chd.cohort import datalist as module
from monai_chd.cohort.datalist import Choices, dataset_dir, load_cases, prepare, read_datalist
from monai_chd.cohort.layouts import LAYOUTS
from monai_chd.cohort.overview import report
from monai_chd.cohort.rules import RULES


@pytest.fixture(scope="module")
def imagechd(tmp_path_factory) -> Path:
    """All 110 patients; not to be changed."""
    return write_imagechd(tmp_path_factory.mktemp("imagechd") / "ImageCHD_dataset" / "ImageCHD_dataset")


@pytest.fixture(scope="module")
def work(imagechd, tmp_path_factory) -> Path:
    """Where it was prepared with the defaults."""
    out = tmp_path_factory.mktemp("work")
    prepare(imagechd, out)
    return out


@pytest.fixture
def part(imagechd, tmp_path) -> Path:
    """24 of the patients with a workbook of all, to be spoilt: eight a class."""
    folder = tmp_path / "part"
    folder.mkdir()
    chosen = """1010 1012 1015 1028 1030 1037 1043 1046 1001 1002 1007 1011 1013 1014 1016 1017
        1003 1005 1032 1047 1051 1062 1063 1066"""
    for patient in chosen.split():
        for kind in ("image", "label"):
            shutil.copy(imagechd / f"ct_{patient}_{kind}.nii.gz", folder)
    write_diagnoses(
        folder / "imageCHD_dataset_info.xlsx",
        lambda rows: rows.__setitem__(slice(1, None), [row for row in rows[1:] if str(row[0]) in chosen.split()]),
    )
    return folder


def prepare_part(folder: Path, out: Path, **choices) -> dict:
    return prepare(folder, out, Choices(**{"folds": 2, "test_fraction": 0.3, **choices}))


def by_patient(datalist: dict) -> dict[str, dict]:
    return {record["patient"]: record for record in (*datalist["training"], *datalist["test"])}


def excluded(out: Path) -> dict[str, str]:
    with (out / "excluded.csv").open(newline="") as file:
        return {row["patient"]: row["reason"] for row in csv.DictReader(file)}


# ImageCHD


@pytest.mark.parametrize(
    ("choices", "counts"),
    [
        ({}, (36, 40, 21, 13)),
        ({"rule": "conventional"}, (43, 40, 21, 6)),
        ({"rule": "all-cyanotic"}, (49, 40, 21, 0)),
        ({"rule": "public72"}, (26, 26, 20, 38)),
        ({"rule": "seed57"}, (18, 20, 19, 53)),
        ({"normal": "uncontradicted", "folds": 2, "test_fraction": 0.3}, (36, 40, 5, 29)),
        ({"normal": "confirmed", "folds": 2, "test_fraction": 0}, (36, 40, 2, 32)),
    ],
    ids=str,
)
def test_the_published_counts_come_out_of_files(imagechd, tmp_path, choices, counts):
    datalist = prepare(imagechd, tmp_path, Choices(**choices))
    labels = Counter(record["label"] for record in by_patient(datalist).values())
    assert (*(labels[index] for index in range(3)), len(excluded(tmp_path))) == counts
    assert datalist["rule"]["name"] == choices.get("rule", "strict")
    assert datalist["normal"] == choices.get("normal", "unflagged")
    assert read_datalist(tmp_path / "datalist.json") == datalist


def test_the_evidence_against_each_patient_left_out_is_in_the_table(imagechd, tmp_path):
    prepare(imagechd, tmp_path, Choices(normal="confirmed", folds=2, test_fraction=0))
    reasons = excluded(tmp_path)
    assert reasons["1083"].startswith("no listed diagnosis: tier C1 (CHD68 lists TGA; 2021 re-review lists VSD)")
    assert sum(reason.startswith("no listed diagnosis: tier") for reason in reasons.values()) == 19


def test_records_hold_what_could_confound(work):
    records = by_patient(read_datalist(work / "datalist.json"))
    for patient, record in records.items():
        assert record["confounders"] == {
            "slices": 6 if patient == "1081" else 5 + int(patient) % 3,
            "spacing_mm": [0.25, 0.25, 0.75],
            "scanner": "iCT 256",
            "contrast": patient != "1063",
        }
        assert tuple(record["flags"]) == known_flags()[patient]
        assert record["hu_offset"] == -1024


def test_odd_scans_pass_and_carry_a_note(work):
    notes = {
        patient: record.get("notes", [])
        for patient, record in by_patient(read_datalist(work / "datalist.json")).items()
    }

    def with_note(start):
        return {patient for patient, own in notes.items() if any(note.startswith(start) for note in own)}

    assert with_note("stray label values") == {"1010", "1016"}
    assert with_note("no myocardium") == {"1005", "1015"}
    assert with_note("slices of another size: 7 x 6, 8 x 8 in most scans") == {"1081"}
    assert with_note("no contrast") == {"1063"}


def test_ages_are_recorded_when_asked_for_without_a_new_split(imagechd, work, tmp_path):
    before = read_datalist(work / "datalist.json")
    prepare(imagechd, tmp_path / "new", Choices(confounders=True))
    text = (tmp_path / "new" / "datalist.json").read_text()
    records = by_patient(json.loads(text))
    assert {record["confounders"]["age_years"] for record in records.values()} == {2.5}
    assert not re.search("2010|2012|birth|sex", text, re.IGNORECASE)
    places = {patient: record.get("fold") for patient, record in records.items()}
    assert places == {patient: record.get("fold") for patient, record in by_patient(before).items()}
    prepare(imagechd, tmp_path / "new")  # the same split, now without ages: nothing stands in the way
    assert "age_years" not in (tmp_path / "new" / "datalist.json").read_text()


def test_ages_without_the_sheet_are_refused(part, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"--confounders records ages, but there is no imagechd_dataset_image_info\.xlsx"
    ):
        prepare_part(part, tmp_path / "work", confounders=True)
    assert not (tmp_path / "work").exists()


def test_descriptions_stay_out_of_batches(work):
    cases = load_cases(work / "datalist.json", dataset_dir(work / "datalist.json"))
    assert all(
        set(case) <= {"image", "label", "patient", "fold", "flags", "sha256", "voxels", "hu_offset"}
        for c in cases.values()
        for case in c
    )


def test_the_command_says_rule_normal_spacing_and_oddities(imagechd, tmp_path, capsys):
    assert main(["prepare", str(imagechd), "--out", str(tmp_path), "--rule", "public72"]) == 0
    out = capsys.readouterr().out
    for text in (
        "rule public72: The 72 patients", "normal unflagged: everybody without a listed diagnosis",
        "warning: rule public72: 1008 is listed as Cyanotic", "warning: rule public72: 1047 is listed as Non-Cyanotic",
        "spacing: 72 scans, 0.25…0.25 x 0.25…0.25 x 0.75…0.75 mm", "remark: 1 scans, no contrast: 1063",
        "  38 not in the list of patients of rule public72", "HU offset",
    ):  # fmt: skip
        assert text in out, text


def test_the_help_tells_what_the_policies_mean(capsys):
    with pytest.raises(SystemExit):
        main(["prepare", "--help"])
    out = re.sub(r"\s+", " ", capsys.readouterr().out)
    for text in (
        "36 cyanotic, 40 non-cyanotic, 13 left out",
        "43, 40, 6",
        "59 patients",
        "uncontradicted",
        "birth dates and sex",
    ):
        assert text in out, text


# ImageCHD, spoilt


def test_without_the_sheet_of_images_there_are_no_millimetres(part, tmp_path):
    datalist = prepare_part(part, tmp_path / "work")
    assert {json.dumps(r["confounders"]["spacing_mm"]) for r in by_patient(datalist).values()} == {"null"}
    assert "voxel units, no millimetres" in report(datalist, tmp_path / "work")


@pytest.mark.parametrize("gone", ["1043", "1066"])
def test_a_missing_volume_is_named(part, tmp_path, gone):
    (part / f"ct_{gone}_image.nii.gz").unlink()
    with pytest.raises(ValueError, match=rf"1 bad rows or scans .*\n  row \d+: no scan found for {gone}\n"):
        prepare_part(part, tmp_path / "work")
    assert list((tmp_path / "work").iterdir()) == []


def test_a_volume_with_another_ending_is_pointed_at(part, tmp_path):
    (part / "ct_1043_image.nii.gz").rename(part / "ct_1043_image.mha")
    with pytest.raises(ValueError, match=r"no scan found for 1043 \(ct_1043_image\.mha is not NIfTI; convert it"):
        prepare_part(part, tmp_path / "work")


def test_a_label_map_of_another_shape_names_both_files(part, tmp_path):
    nib.save(nib.Nifti1Image(label_map("1043", (8, 8, 9)), np.eye(4)), part / "ct_1043_label.nii.gz")
    with pytest.raises(
        ValueError, match=r"ct_1043_label\.nii\.gz: label map of 8 x 8 x 9 voxels, but ct_1043_image\.nii\.gz"
    ):
        prepare_part(part, tmp_path / "work")
    datalist = prepare_part(part, tmp_path / "work", skip_bad=True)
    assert "1043" not in by_patient(datalist) and "1043" in excluded(tmp_path / "work")


def test_two_workbooks_and_none(part, tmp_path):
    shutil.copy(part / "imageCHD_dataset_info.xlsx", part / "IMAGECHD_dataset_info.xlsx")
    with pytest.raises(ValueError, match=r"several tables could be meant .*; name one with --table FILE"):
        prepare_part(part, tmp_path / "work")
    for book in part.glob("*.xlsx"):
        book.unlink()
    write_info(part / "imagechd_dataset_image_info.xlsx", [info_row(1001)])
    with pytest.raises(FileNotFoundError, match=r"no table of diagnoses found; expected imageCHD_dataset_info\.xlsx"):
        prepare_part(part, tmp_path / "work")
    with pytest.raises(ValueError, match="this sheet tells of images, not of diagnoses") as caught:
        prepare_part(part, tmp_path / "work", table=part / "imagechd_dataset_image_info.xlsx")
    assert "2010" not in str(caught.value)


def test_another_sheet_name_and_an_unknown_flag_are_read_and_said(part, tmp_path):
    def change(rows):
        rows[0].append("SV")
        keep = [row for row in rows[1:] if (part / f"ct_{row[0]}_image.nii.gz").exists()]
        for row in keep:
            row[0] = f"ct_{row[0]}"
            row.append(1 if row[0] == "ct_1063" else None)
        rows[1:] = keep

    write_diagnoses(part / "imageCHD_dataset_info.xlsx", change, sheet="Tabelle1")
    datalist = prepare_part(part, tmp_path / "work")
    assert len(by_patient(datalist)) == 24  # ids as text
    assert any(
        "no sheet is named 'classification dataset'; read the first one, 'Tabelle1'" in n for n in datalist["notes"]
    )
    assert any(
        n.startswith("column SV looks like a diagnosis flag") and "1063 have no other" in n for n in datalist["notes"]
    )
    assert "warning: column SV" in report(datalist, tmp_path / "work")


def test_a_wrong_rule_file_stops_before_anything_is_written(part, tmp_path, capsys):
    (tmp_path / "rule.json").write_text(
        '{"name": "x", "description": "y", "steps": [{"flags": ["PuA"], "class": "Normal"}]}'
    )
    command = ["prepare", str(part), "--out", str(tmp_path / "work"), "--rule", str(tmp_path / "rule.json")]
    assert main(command) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and 'got "PuA"' in line
    assert not (tmp_path / "work").exists()


def test_an_interrupted_writing_leaves_no_half_datalist(part, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(module.csv.DictWriter, "writerows", fail)
    with pytest.raises(OSError, match="disk full"):
        prepare_part(part, tmp_path / "work")
    assert list((tmp_path / "work").iterdir()) == []


def test_another_rule_is_another_split(part, tmp_path):
    content = json.loads(RULES.find("strict").read_text())
    for step in content["steps"]:
        step["class"] = {"Cyanotic": "Non-Cyanotic", "Non-Cyanotic": "Cyanotic"}.get(step["class"], step["class"])
    (tmp_path / "rule.json").write_text(json.dumps(content))
    prepare_part(part, tmp_path / "work")
    with pytest.raises(ValueError, match="holds another split"):
        prepare_part(part, tmp_path / "work", rule=tmp_path / "rule.json")


# other cohorts


def write_hvsmr(folder: Path) -> Path:
    """12 patients like HVSMR-2.0: MR in arbitrary units, variants of each volume, a column a diagnosis."""
    kinds = {"VSD": "1000", "D-TGA": "0001", "Normal": "0000"}
    rows = []
    for number in range(12):
        for variant in ("orig", "cropped", "cropped_norm"):
            values = np.random.default_rng(number).integers(0, 800, (8, 8, 6)).astype(np.int16)
            write_scan(folder / variant / f"pat{number}_{variant}.nii.gz", values)
            write_scan(folder / variant / f"pat{number}_{variant}_seg.nii.gz", np.zeros((8, 8, 6), np.uint8))
        kind = list(kinds)[number % 3]
        rows.append(
            [f"pat{number}", 7, *(int(name == kind) for name in ("VSD", "ASD", "DORV", "D-TGA")), int(kind == "Normal")]
        )
    rows[-2][4] = 1  # pat10, with D-TGA or DORV
    write_rows(folder / "clinical.csv", ["Pat", "Age", "VSD", "ASD", "DORV", "D-TGA", "Normal"], rows)
    write_rows(folder / "technical.csv", ["Pat", "Scanner"], [["pat0", "x"]])
    return folder


def test_a_layout_like_hvsmr_is_read_by_its_example(tmp_path):
    folder = write_hvsmr(tmp_path / "hvsmr")
    out = tmp_path / "work"
    assert (
        main(
            ["prepare", str(folder), "--cohort", "hvsmr2", "--out", str(out), "--folds", "2", "--test-fraction", "0.3"]
        )
        == 0
    )
    datalist = read_datalist(out / "datalist.json")
    records = by_patient(datalist)
    assert {record["image"] for record in records.values()} == {f"orig/pat{i}_orig.nii.gz" for i in range(12)}
    expected = {f"pat{i}": (1, 0, 2)[i % 3] for i in range(12)}
    assert {patient: record["label"] for patient, record in records.items()} == expected
    assert records["pat10"]["flags"] == ["TGA", "DORV"] and records["pat1"]["flags"] == ["TGA"]
    assert {record["hu_offset"] for record in records.values()} == {0}


def write_acdc(folder: Path, groups: str = "NOR DCM HCM MINF RV") -> Path:
    """20 patients like ACDC: a 4D cine, frames and label maps taken out of it, Info.cfg."""
    names = groups.split()
    for number in range(1, 21):
        patient = folder / "training" / f"patient{number:03d}"
        cine = np.random.default_rng(number).integers(0, 300, (6, 6, 3, 4)).astype(np.int16)
        write_scan(patient / f"patient{number:03d}_4d.nii.gz", cine)
        for frame in (1, 3):
            write_scan(patient / f"patient{number:03d}_frame{frame:02d}.nii.gz", cine[..., frame])
            write_scan(patient / f"patient{number:03d}_frame{frame:02d}_gt.nii.gz", cine[..., frame] % 4)
        info = f"ED: 1\nES: 3\nGroup: {names[number % len(names)]}\nHeight: 170.0\nNbFrame: 4\nWeight: 70.0\n"
        (patient / "Info.cfg").write_text(info)
    return folder


def test_a_layout_like_acdc_is_read_by_its_example(tmp_path, capsys):
    folder, out = write_acdc(tmp_path / "acdc"), tmp_path / "work"
    assert main(["prepare", str(folder), "--cohort", "acdc", "--out", str(out), "--folds", "2"]) == 0
    records = by_patient(read_datalist(out / "datalist.json"))
    assert len(records) == 20
    assert all(record["image"].endswith("_4d.nii.gz") and "hu_offset" not in record for record in records.values())
    assert Counter(record["label"] for record in records.values()) == {1: 16, 2: 4}
    assert "cine in arbitrary units" in (text := capsys.readouterr().out)
    assert "nobody can be Cyanotic" in text


def test_groups_may_mean_other_classes_in_a_file_of_ones_own(tmp_path):
    layout = json.loads(LAYOUTS.find("acdc").read_text())
    layout["values"] = {"NOR": "Normal", "DCM": "ToF", "HCM": "VSD", "MINF": "undetermined", "RV": "DORV"}
    del layout["absent_classes"]
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(layout))
    datalist = prepare(
        write_acdc(tmp_path / "acdc"), tmp_path / "work", Choices(layout=path, folds=2, test_fraction=0.25)
    )
    assert Counter(record["label"] for record in by_patient(datalist).values()) == {0: 4, 1: 4, 2: 4}
    assert Counter(excluded(tmp_path / "work").values()).most_common(1)[0][1] == 4
    assert len(excluded(tmp_path / "work")) == 8


def test_a_missing_cine_and_an_unknown_group_are_named(tmp_path):
    folder = write_acdc(tmp_path / "acdc")
    (folder / "training" / "patient004" / "patient004_4d.nii.gz").unlink()
    (folder / "training" / "patient007" / "Info.cfg").write_text("Group: ABC\n")
    with pytest.raises(ValueError) as caught:
        prepare(folder, tmp_path / "work", Choices(layout="acdc", folds=2))
    assert "training/patient004/Info.cfg: no scan found for patient004" in str(caught.value)
    assert "training/patient007/Info.cfg (id patient007): value 'ABC'; expected one of NOR, DCM" in str(caught.value)


def test_a_wrong_layout_is_one_line(tmp_path, capsys):
    (tmp_path / "c.json").write_text('{"name": "c"}')
    command = [
        "prepare",
        str(write_cohort(tmp_path / "cohort", 9)),
        "--out",
        str(tmp_path / "w"),
        "--cohort",
        str(tmp_path / "c.json"),
    ]
    assert main(command) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "c.json: not a layout: expected one of class_column" in line
    assert not (tmp_path / "w").exists()


def test_a_table_of_classes_has_neither_rule_nor_normal(tmp_path):
    datalist = prepare(write_cohort(tmp_path / "cohort", 9), tmp_path / "work", Choices(folds=2, test_fraction=0.33))
    assert (datalist["rule"], datalist["normal"], datalist["notes"]) == (None, None, [])
