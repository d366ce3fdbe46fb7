import csv
import hashlib
import shutil
import stat
import subprocess
import zipfile
from collections import Counter
from datetime import datetime
from pathlib import Path

import nibabel as nib
import numpy as np
import openpyxl
import pytest

import monai_chd
from monai_chd.cli import main
from monai_chd.cohort.imagechd_image_info import read_image_info
from monai_chd.cohort.tables import read_table
from monai_chd.errors import UserError
from monai_chd.hu_offset import detect_hu_offset
from monai_chd.labels import FLAGS
from monai_chd.phantom import imagechd
from monai_chd.phantom.imagechd import SCANNERS, image_info_row, scaled_shape, write_imagechd
from monai_chd.phantom.volume import make_volume

SIZE = 32
PART = [1001, 1010, 1063, 1081, 1170]
with (Path(monai_chd.__file__).parent / "cohort" / "imagechd.csv").open() as _stream:
    KNOWN = {int(row["index"]): row for row in csv.DictReader(_stream)}

needs_zip = pytest.mark.skipif(shutil.which("zip") is None, reason="Info-ZIP's zip is not installed")
SEVEN_ZIP = shutil.which("7z") or shutil.which("7zz")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All 110 patients, with exact label maps."""
    out = tmp_path_factory.mktemp("imagechd") / "cohort"
    return write_imagechd(out, size=SIZE, labels="clean", progress=False).parent


@pytest.fixture(scope="module")
def scans(folder):
    """Image and label map of each id as nibabel has them."""
    return {i: tuple(nib.load(folder / f"ct_{i}_{kind}.nii.gz") for kind in ("image", "label")) for i in KNOWN}


@pytest.fixture(scope="module")
def voxels(scans):
    """Image and label map of each id as arrays of their stored type."""
    return {i: tuple(np.asarray(scan.dataobj) for scan in pair) for i, pair in scans.items()}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A part of the cohort with its archive."""
    if shutil.which("zip") is None:
        pytest.skip("Info-ZIP's zip is not installed")
    out = tmp_path_factory.mktemp("archive") / "cohort"
    ids = list(KNOWN)[:60]
    return write_imagechd(out, size=SIZE, ids=ids, archive=True, progress=False).parent / "archive"


def digests(folder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir()) if path.is_file()
    }


def flags_of(patient):
    return [flag for flag in FLAGS if KNOWN[patient][flag] == "1"]


def shape_of(patient):
    return tuple(int(KNOWN[patient][f"shape_{axis}"]) for axis in "xyz")


def test_folder_holds_the_files_of_imagechd_and_nothing_else(folder):
    names = {f"ct_{i}_{kind}.nii.gz" for i in KNOWN for kind in ("image", "label")}
    assert {path.name for path in folder.iterdir()} == names | {
        "imageCHD_dataset_info.xlsx", "imagechd_dataset_image_info.xlsx",
    }  # fmt: skip
    assert len(KNOWN) == 110 and len(names) == 220


def test_diagnoses_are_those_of_imagechd_cell_by_cell(folder):
    book = openpyxl.load_workbook(folder / "imageCHD_dataset_info.xlsx")
    assert book.sheetnames == ["classification dataset"]
    sheet = book.active
    assert sheet.freeze_panes == "A2" and not sheet.merged_cells.ranges and sheet.dimensions == "A1:Q111"
    rows = list(sheet.iter_rows(values_only=True))
    assert rows[0] == (
        "index", "ASD", "VSD", "AVSD", "ToF", "TGA", "DORV", "CAT", "CA", "AAH", "DAA", "IAA", "PA", "APVC", "DSVC", "PDA",
        "PAS",
    )  # fmt: skip
    assert [row[0] for row in rows[1:]] == sorted(KNOWN)
    zeros = []
    for patient, *cells in rows[1:]:
        zeros += [(patient, flag) for flag, cell in zip(FLAGS, cells, strict=True) if cell == 0]
        assert [1 if cell else None for cell in cells] == [1 if f in flags_of(patient) else None for f in FLAGS]
        assert {type(cell) for cell in cells} <= {int, type(None)}
    assert zeros == [(1047, "VSD")]
    counts = [sum(bool(row[column]) for row in rows[1:]) for column in range(1, 17)]
    assert counts == [32, 36, 0, 12, 5, 7, 4, 7, 3, 5, 3, 15, 6, 8, 13, 2]


def test_the_projects_reader_finds_the_known_classes(folder):
    rows = read_table(folder / "imageCHD_dataset_info.xlsx")
    assert not any(row.problem for row in rows)
    assert sorted(Counter(row.label for row in rows).values()) == [13, 21, 36, 40]
    assert sum(row.label is None for row in rows) == 13


def test_image_info_is_laid_out_as_imagechds_cell_by_cell(folder):
    book = openpyxl.load_workbook(folder / "imagechd_dataset_image_info.xlsx")
    assert book.sheetnames == ["Sheet1"]
    rows = list(book.active.iter_rows(values_only=True))
    assert len(rows) == 110 and {len(row) for row in rows} == {15}
    idx = [row[1] for row in rows]
    assert sorted(idx) == [i - 1000 for i in sorted(KNOWN)] and idx != sorted(idx)
    keys = [(row[0], row[2], row[4], row[6], row[8], row[11], row[13]) for row in rows]
    assert {tuple(key.strip() for key in row) for row in keys} == {
        ("idx", "PatientBirthDate", "AcquisitionDate", "PatientSex", "PixelSpacing", "calculate_z_thick",
         "ManufacturerModelName"),
    }  # fmt: skip
    assert 0.1 < np.mean([key != key.strip() for row in keys for key in row]) < 0.3
    for row in rows:
        x, y, z = (float(str(row[column]).replace(",", ".")) for column in (9, 10, 12))
        assert x == y and (0.207 <= x <= 0.434 or 0.61 <= x <= 0.92)
        assert row[7] in ("F", "M") and z in SCANNERS[row[14]]
        born, acquired = (datetime.strptime(str(row[column]), "%Y%m%d") for column in (3, 5))
        assert 8 <= (acquired - born).days <= 47 * 366
        adult = (acquired - born).days >= 18 * 365
        assert adult == (x > 0.5)


def test_image_info_has_numbers_and_texts_with_a_decimal_comma(folder):
    sheet = openpyxl.load_workbook(folder / "imagechd_dataset_image_info.xlsx").active
    for columns in ("DF", "JKM"):
        cells = [cell.value for column in columns for cell in sheet[column]]
        assert 0.1 < np.mean([isinstance(cell, str) for cell in cells]) < 0.3
        assert ("," in "".join(filter(lambda cell: isinstance(cell, str), cells))) == (columns == "JKM")
        assert not any("." in cell for cell in cells if isinstance(cell, str))


def test_the_projects_reader_reads_every_row_of_image_info(folder):
    sheet = read_image_info(folder / "imagechd_dataset_image_info.xlsx", ages=True)
    assert sheet.notes == [] and sorted(map(int, sheet.scans)) == sorted(KNOWN)
    assert all(info.spacing_mm and info.scanner and info.age_years is not None for info in sheet.scans.values())


def test_headers_are_those_of_imagechd(scans):
    for image, labels in scans.values():
        assert image.shape == labels.shape and image.get_data_dtype() == np.int16
        for scan in (image, labels):
            assert np.array_equal(scan.affine, np.eye(4)) and scan.header.get_zooms() == (1, 1, 1)
            assert scan.header.get_xyzt_units() == ("unknown", "unknown")
            assert (int(scan.header["qform_code"]), int(scan.header["sform_code"])) == (0, 1)


def test_shapes_are_those_of_imagechd_made_smaller(scans):
    for patient, (image, _) in scans.items():
        x, y, z = image.shape
        assert z == max(8, round(shape_of(patient)[2] / 16)), patient
        assert ((x, y) == (32, 32)) == (patient != 1081), patient
    assert scans[1081][0].shape == (11, 10, 16)
    assert max(scans, key=lambda patient: scans[patient][0].shape[2]) == 1161


@pytest.mark.parametrize("size", [32, 48, 64, 100, 512])
def test_the_crop_is_never_square_and_no_axis_below_eight(size):
    for patient in KNOWN:
        shape = scaled_shape(shape_of(patient), size, 512)
        assert min(shape) >= 8 and (shape[0] == shape[1] == size) == (patient != 1081)
        assert (shape[0] > shape[1]) == (patient == 1081)
        assert size != 512 or shape == shape_of(patient)


def test_intensities_fill_0_to_4095_but_in_one_patient(voxels):
    highest = {patient: int(image.max()) for patient, (image, _) in voxels.items()}
    assert {patient: value for patient, value in highest.items() if value != 4095} == {1010: 3713}
    assert {int(image.min()) for image, _ in voxels.values()} == {0}
    assert {detect_hu_offset(image, "") for image, _ in voxels.values()} == {-1024.0}


def test_stray_labels_are_where_they_are_known(voxels):
    found = {
        patient: sorted(set(np.rint(labels).ravel().tolist()) - set(range(8)))
        for patient, (_, labels) in voxels.items()
    }
    assert {patient: values for patient, values in found.items() if values} == {
        1010: [15],
        1016: [8],
        1080: [12],
        1122: [13],
    }


def test_thirteen_label_maps_lack_the_myocardium_and_none_of_them_is_in_chd68(voxels):
    lacking = {patient for patient, (_, labels) in voxels.items() if not (np.rint(labels) == 5).any()}
    assert {1005, 1015} <= lacking and len(lacking) == 13
    assert not any(KNOWN[patient]["chd68"] for patient in lacking)
    assert all((np.rint(labels) == 1).any() for _, labels in voxels.values())


def test_some_label_maps_are_floats_that_are_not_quite_whole(voxels):
    floats = {patient for patient, (_, labels) in voxels.items() if labels.dtype == np.float32}
    assert len(floats) == 33
    assert {labels.dtype.name for patient, (_, labels) in voxels.items() if patient not in floats} == {"uint8"}
    for patient in floats:
        labels = voxels[patient][1]
        error = labels - np.rint(labels)
        assert error.min() < 0 < error.max() and np.abs(error).max() < 1e-3 and not error[labels == 0].any()
        assert (labels.astype(int) != np.rint(labels)).any()


def test_one_patient_had_no_contrast(voxels):
    blood = {}
    for patient, (image, labels) in voxels.items():
        blood[patient] = np.median(image[np.isin(np.rint(labels), (1, 2, 3, 4))]) - 1024.0
    assert blood.pop(1063) == pytest.approx(45, abs=12)
    assert min(blood.values()) > 150


@pytest.mark.parametrize("patient", [1001, 1005, 1010, 1016, 1042, 1047, 1063, 1119, 1129, 1161, 1170, 1178])
def test_the_hearts_are_those_of_the_flags_and_only_the_streaked_image_differs(patient, voxels):
    slices = voxels[patient][0].shape[2]
    plain, labels, _ = make_volume(
        flags_of(patient),
        seed=(42, patient),
        size=SIZE,
        slices=(slices, slices),
        difficulty="realistic",
        contrast=patient != 1063,
    )
    image, found = voxels[patient]
    wrong = (image != plain) & ~np.isin(image, (0, image.max()))
    per_slice = wrong.mean(axis=(0, 1))
    if patient == 1170:
        assert (per_slice[slices // 3 : 2 * slices // 3] > 0.5).all()
        per_slice[slices // 3 : 2 * slices // 3] = 0
    assert not per_slice.any()
    found = np.rint(found).astype(int)
    moved = set(zip(labels[found != labels].tolist(), found[found != labels].tolist(), strict=True))
    stray = {(0, {1010: 15, 1016: 8}[patient])} if patient in (1010, 1016) else set()
    assert moved == (stray if (found == 5).any() else stray | {(5, 0)})


def test_label_maps_are_rough_unless_asked_for_clean_ones(folder, tmp_path):
    rough = write_imagechd(tmp_path / "rough", size=SIZE, ids=PART, progress=False).parent
    for patient in PART:
        clean, drawn = (folder / f"ct_{patient}_label.nii.gz", rough / f"ct_{patient}_label.nii.gz")
        assert clean.read_bytes() != drawn.read_bytes()
        image = f"ct_{patient}_image.nii.gz"
        assert (folder / image).read_bytes() == (rough / image).read_bytes()


def test_the_crop_keeps_the_heart(voxels):
    labels = np.rint(voxels[1081][1])
    assert {1, 2, 3, 4, 6} <= set(np.unique(labels)) and (labels > 0).mean() > 0.1


def test_same_seed_same_bytes_also_in_a_part_and_other_seed_others(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1.9e9)  # gzip and zip ask it
    whole = digests(folder)
    part = digests(write_imagechd(tmp_path / "part", size=SIZE, labels="clean", ids=PART, progress=False).parent)
    again = digests(
        write_imagechd(tmp_path / "again", size=SIZE, labels="clean", ids=PART[::-1], progress=False).parent
    )
    other = digests(
        write_imagechd(tmp_path / "other", size=SIZE, labels="clean", seed=43, ids=PART, progress=False).parent
    )
    assert again == part and len(part) == 2 * len(PART) + 2
    assert {name: digest for name, digest in part.items() if name.endswith(".gz")}.items() <= whole.items()
    assert all(part[name] != other[name] for name in part if name != "imageCHD_dataset_info.xlsx")
    for name in ("imageCHD_dataset_info.xlsx", "imagechd_dataset_image_info.xlsx"):
        with zipfile.ZipFile(folder / name) as book:
            assert {entry.date_time for entry in book.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_part_has_the_rows_of_the_whole(folder, tmp_path):
    def rows(place, name):
        return list(openpyxl.load_workbook(place / name).active.iter_rows(values_only=True))

    part = write_imagechd(tmp_path / "part", size=SIZE, ids=PART, progress=False).parent
    whole = rows(folder, "imageCHD_dataset_info.xlsx")
    assert rows(part, "imageCHD_dataset_info.xlsx") == [row for row in whole if row[0] in ("index", *PART)]
    whole = rows(folder, "imagechd_dataset_image_info.xlsx")
    assert rows(part, "imagechd_dataset_image_info.xlsx") == [row for row in whole if 1000 + row[1] in PART]


def test_diagnoses_decide_nothing_but_the_hearts(tmp_path, monkeypatch):
    known = imagechd.patients()
    first = write_imagechd(tmp_path / "first", size=SIZE, ids=PART, progress=False).parent
    swapped = {patient: facts._replace(flags=("ToF",)) for patient, facts in known.items()}
    monkeypatch.setattr(imagechd, "patients", lambda: swapped)
    second = write_imagechd(tmp_path / "second", size=SIZE, ids=PART, progress=False).parent
    one, two = digests(first), digests(second)
    assert one["imagechd_dataset_image_info.xlsx"] == two["imagechd_dataset_image_info.xlsx"]
    for patient in PART:
        a, b = (nib.load(place / f"ct_{patient}_label.nii.gz") for place in (first, second))
        assert a.shape == b.shape and a.get_data_dtype() == b.get_data_dtype()
        corner = [
            np.asarray(nib.load(place / f"ct_{patient}_image.nii.gz").dataobj)[-1, -1] for place in (first, second)
        ]
        assert patient == 1081 or np.array_equal(*corner)


def test_ages_and_scanners_vary(folder):
    rows = [image_info_row(patient, 42) for patient in KNOWN]
    assert {row[-1] for row in rows} == set(SCANNERS)
    assert 3 <= sum(float(str(row[9]).replace(",", ".")) > 0.5 for row in rows) <= 25


def test_archive_is_named_and_cut_as_kaggle_serves_it(archive):
    volumes = sorted(archive.iterdir())
    numbered = [f"ImageCHD_dataset.z{i:02d}" for i in range(1, 13)]
    assert [path.name for path in volumes] == ["ImageCHD_dataset.change2zip", *numbered]
    sizes = {path.stat().st_size for path in volumes[1:]}
    # a header that would be cut in two goes whole into the next volume
    assert max(sizes) - min(sizes) < 256 and min(sizes) >= 65536 and volumes[0].stat().st_size < min(sizes)
    assert volumes[1].read_bytes()[:4] == b"PK\x07\x08"  # the mark of a split archive
    assert not list(archive.parent.glob(".archive-*"))
    assert all(path.stat().st_mtime > 1e9 for path in archive.parent.iterdir())  # dated 1980 in the archive only


@needs_zip
def test_archive_joined_by_zip_holds_the_folder(archive, tmp_path):
    shutil.copytree(archive, tmp_path / "volumes")
    last = (tmp_path / "volumes" / "ImageCHD_dataset.change2zip").rename(tmp_path / "volumes" / "ImageCHD_dataset.zip")
    subprocess.run(["zip", "-q", "-s", "0", str(last), "--out", str(tmp_path / "one.zip")], check=True)
    subprocess.run(["zip", "-qT", str(tmp_path / "one.zip")], check=True)
    with zipfile.ZipFile(tmp_path / "one.zip") as joined:
        names = joined.namelist()
        assert {entry.date_time for entry in joined.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        found = {name: hashlib.sha256(joined.read(name)).hexdigest() for name in names[1:]}
    assert names == ["ImageCHD_dataset/", *sorted(names[1:])]
    assert found == {f"ImageCHD_dataset/{name}": digest for name, digest in digests(archive.parent).items()}


@pytest.mark.skipif(SEVEN_ZIP is None, reason="7-Zip is not installed")
def test_seven_zip_reads_the_archive_once_its_last_volume_is_renamed(archive, tmp_path):
    shutil.copytree(archive, tmp_path / "volumes")
    last = (tmp_path / "volumes" / "ImageCHD_dataset.change2zip").rename(tmp_path / "volumes" / "ImageCHD_dataset.zip")
    done = subprocess.run([SEVEN_ZIP, "t", str(last)], capture_output=True, text=True, check=True)
    assert "Everything is Ok" in done.stdout and "Volumes = 13" in done.stdout and "Files: 122" in done.stdout


@needs_zip
def test_archive_of_little_is_one_volume_and_has_the_same_bytes_again(tmp_path, monkeypatch):
    monkeypatch.setenv("ZIPOPT", "-9 -v")  # somebody's own settings
    places = [
        write_imagechd(tmp_path / name, size=SIZE, ids=[1032], archive=True, progress=False).parent for name in "ab"
    ]
    assert [path.name for path in (places[0] / "archive").iterdir()] == ["ImageCHD_dataset.change2zip"]
    assert digests(places[0] / "archive") == digests(places[1] / "archive")


def test_archive_without_zip_says_what_to_install_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="apt-get install zip"):
        write_imagechd(tmp_path / "cohort", size=SIZE, ids=PART, archive=True, progress=False)
    assert not (tmp_path / "cohort").exists()


def test_archive_that_zip_cannot_split_leaves_none(tmp_path, monkeypatch):
    program = tmp_path / "zip"
    program.write_text("#!/bin/sh\necho no room\nexit 15\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(shutil, "which", lambda name: str(program))
    with pytest.raises(UserError, match=r"could not split the archive \(code 15\): no room"):
        write_imagechd(tmp_path / "cohort", size=SIZE, ids=[1032], archive=True, progress=False)
    assert len(list((tmp_path / "cohort").iterdir())) == 4


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"size": 16}, "size: expected at least 32"),
        ({"ids": [1001, 1006]}, "ids: expected some of ImageCHD's 110 patients"),
        ({"ids": []}, "ids: expected some"),
    ],
)
def test_refuses_before_anything_is_written(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_imagechd(tmp_path / "cohort", progress=False, **arguments)
    assert not (tmp_path / "cohort").exists()


def test_refuses_a_folder_in_use(folder):
    with pytest.raises(ValueError, match="expected a new or empty folder"):
        write_imagechd(folder, size=SIZE, ids=PART, progress=False)


@pytest.fixture
def asked(monkeypatch):
    """What the command line asks `write_imagechd` for."""
    calls = []

    def record(folder, **arguments):
        calls.append(arguments)
        return Path(folder) / "imageCHD_dataset_info.xlsx"

    monkeypatch.setattr(imagechd, "write_imagechd", record)
    return calls


def test_command_line_makes_it(asked, tmp_path, capsys):
    assert main(["phantom", str(tmp_path / "out"), "--like-imagechd"]) == 0
    assert main(["phantom", str(tmp_path / "out"), "--like-imagechd", "--size", "512", "--seed", "7", "--archive"]) == 0
    assert main(["phantom", str(tmp_path / "out"), "--like-imagechd", "--labels", "clean"]) == 0
    usual = {"size": 64, "seed": 42, "archive": False, "labels": "rough"}
    assert asked == [usual, usual | {"size": 512, "seed": 7, "archive": True}, usual | {"labels": "clean"}]
    shown = capsys.readouterr().out
    assert (
        shown.count("next: monai-chd prepare") == 3
        and shown.count(f"split archive: {tmp_path / 'out' / 'archive'}") == 1
    )


@pytest.mark.parametrize(
    "words, message",
    [
        (["--like-imagechd", "--patients", "6"], "--patients: --like-imagechd has ImageCHD's own patients"),
        (["--like-imagechd", "--lesions", "ASD", "--slices", "8", "9"], "--slices, --lesions: --like-imagechd"),
        (["--archive"], "--archive: only ImageCHD comes as a split archive"),
    ],
)
def test_command_line_refuses_what_cannot_be_met(words, message, asked, tmp_path, capsys):
    assert main(["phantom", str(tmp_path / "out"), *words]) == 1
    assert message in capsys.readouterr().err
    assert asked == [] and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_full_size_has_the_real_shapes(tmp_path):
    """Written for the smallest one, since one of 512 x 512 x 137 takes most of a minute."""
    folder = write_imagechd(tmp_path / "full", size=512, ids=[1081], progress=False).parent
    for kind in ("image", "label"):
        assert nib.load(folder / f"ct_1081_{kind}.nii.gz").shape == (181, 170, 249)
    shapes = [facts.shape for facts in imagechd.patients().values()]
    assert len(shapes) == 110 and all(scaled_shape(shape, 512, 512) == shape for shape in shapes)
