import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from monai_chd.phantom.cohort import write_cohort
from monai_chd.report import contact_sheet as module
from monai_chd.report.contact_sheet import (
    COLOURS,
    LEGEND,
    OPACITY,
    TILE,
    TITLE_WIDTH,
    Case,
    cohort_contact_sheet,
    contact_sheet,
    structure_contact_sheet,
)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort") / "phantom"
    write_cohort(folder, patients=8, size=32, slices=(8, 8), lesions=["ASD", "VSD", "ASD", "DORV"], progress=False)
    return folder


def pixels(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("L"))


def test_patients_right_is_on_the_left_and_anterior_is_up(tmp_path):
    hu = np.full((40, 40, 5), -200.0)
    hu[30:, 30:] = 900  # right and anterior
    sheet = pixels(contact_sheet([Case("", hu)], tmp_path / "sheet.png", columns=1))
    frame = sheet[:, TITLE_WIDTH:]
    assert frame.shape == (TILE, TILE)
    assert frame[5, 5] == 255 and frame[5, -5] == frame[-5, 5] == frame[-5, -5] == 0


def test_window_is_minus_200_to_900_hu(tmp_path):
    for hu, grey in ((-1000, 0), (-200, 0), (350, 128), (900, 255), (3000, 255)):
        sheet = pixels(contact_sheet([Case("", np.full((9, 9, 3), hu))], tmp_path / "sheet.png", columns=1))
        assert sheet[TILE // 2, TITLE_WIDTH + TILE // 2] == grey


def test_frames_run_from_the_ventricles_to_the_top_of_the_heart(tmp_path):
    hu = np.broadcast_to(np.arange(40) * 25.0 - 200, (8, 8, 40))
    heart = np.zeros((8, 8, 40), np.uint8)
    heart[4, 4, :36], heart[2, 2, 10:20] = 6, 1
    sheet = pixels(contact_sheet([Case("", hu, heart)], tmp_path / "sheet.png", columns=5))
    shown = sheet[TILE // 2, TITLE_WIDTH + TILE // 2 :: TILE] * (1100 / 255 / 25)
    np.testing.assert_allclose(shown, 10 + (np.arange(5) + 0.5) / 5 * 25, atol=0.6)


def test_titles_are_written_and_rows_follow_the_cases(tmp_path):
    cases = [Case("1001\nNormal", np.full((9, 9, 3), 900)), Case("1002", np.full((9, 5, 3), -200))]
    sheet = pixels(contact_sheet(cases, tmp_path / "sheet.png", columns=3))
    assert sheet.shape == (2 * TILE, TITLE_WIDTH + 3 * TILE)
    assert sheet[:TILE, :TITLE_WIDTH].max() == 255 and sheet[TILE:, :TITLE_WIDTH].max() == 255
    assert sheet[TILE // 2, -5] == 255 and sheet[TILE + TILE // 2, -5] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_cohort_sheet_shows_different_diagnoses_of_each_class(cohort, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(module, "contact_sheet", lambda cases, path: shown.extend(cases) or contact_sheet(cases, path))
    sheet = pixels(cohort_contact_sheet(cohort, tmp_path / "sheet.png", per_class=2))
    titles = [case.title.split("\n")[1:] for case in shown]
    assert sorted(titles[:2]) == [["Non-Cyanotic", "ASD"], ["Non-Cyanotic", "VSD"]]
    assert titles[2:] == [["Undetermined", "DORV"]] * 2
    assert all(-1024 <= case.hu.min() < -800 and case.heart.max() == 7 for case in shown)
    assert sheet.shape[0] == 4 * TILE and len(np.unique(sheet)) > 100


@pytest.mark.parametrize(
    "cases, columns, message",
    [
        ([], 8, "at least one case"),
        ([Case("x", np.zeros((4, 4, 4)))], 0, "one column"),
        ([Case("x", np.zeros((4, 4)))], 2, "volume"),
    ],
)
def test_refuses_what_cannot_be_drawn(cases, columns, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        contact_sheet(cases, tmp_path / "sheet.png", columns=columns)
    assert not list(tmp_path.iterdir())


def test_names_the_image_that_is_missing(cohort, tmp_path):
    workbook = cohort / "imageCHD_dataset_info.xlsx"
    (tmp_path / workbook.name).write_bytes(workbook.read_bytes())
    with pytest.raises(FileNotFoundError, match=r"ct_1\d+_image.nii.gz: the workbook lists patient 1"):
        cohort_contact_sheet(tmp_path, tmp_path / "sheet.png")


def test_label_maps_are_laid_over_their_scans_and_the_colours_named(tmp_path):
    labels = np.zeros((20, 20, 6), np.uint8)
    labels[:10] = 1
    hu = np.full((20, 20, 6), -200.0)
    with Image.open(contact_sheet([Case("", hu, labels, coloured=True)], tmp_path / "s.png", columns=4)) as picture:
        sheet = picture.copy()
    assert sheet.mode == "RGB" and sheet.height == TILE + LEGEND
    right_of_patient, left_of_patient = (sheet.getpixel((TITLE_WIDTH + x, TILE // 2)) for x in (TILE - 20, 20))
    assert left_of_patient == (0, 0, 0) and right_of_patient == tuple(round(OPACITY * part) for part in COLOURS[1])
    legend = np.asarray(sheet)[TILE:]
    assert {COLOURS[1], COLOURS[7]} <= {tuple(pixel) for pixel in legend.reshape(-1, 3).tolist()}


def test_of_many_scans_some_are_drawn(tmp_path):
    pairs = []
    for number in range(5):
        scan, label_map = (tmp_path / f"{number}_{kind}.nii.gz" for kind in ("image", "label"))
        hu = np.random.default_rng(number).normal(np.where(np.indices((12, 12, 4))[0] < 6, -900, 60), 20)
        nib.save(nib.Nifti1Image(hu.astype(np.int16), np.eye(4)), scan)
        nib.save(nib.Nifti1Image(np.full((12, 12, 4), 2, np.uint8), np.eye(4)), label_map)
        pairs.append((str(number), scan, label_map))
    with Image.open(structure_contact_sheet(pairs, tmp_path / "sheet.png", most=3)) as sheet:
        assert sheet.height == 3 * TILE + LEGEND
