"""An id stands at one place in all names; what fits at several is nobody's until somebody says whose."""

import itertools
import unicodedata
from pathlib import Path

import pytest

from monai_chd.cohort.naming import mentioned, read_names


def read(names, ids):
    """Names of one patient to that patient; names that are not sure are left out; and what is said of these."""
    readings = read_names([Path(f"{name}.nii.gz") for name in names], list(map(str, ids)))
    sure = {path.name[:-7]: min(own.patients) for path, own in readings.items() if len(own.patients) == 1}
    doubts = {path.name[:-7]: own.doubt for path, own in readings.items() if path.name[:-7] not in sure}
    return sure, doubts


def test_a_number_after_run_or_ses_is_no_patient():
    names = [f"sub-{n:02d}_ct" for n in range(1, 9)] + ["sub-12_run-3_ct"]
    sure, doubts = read(names, range(1, 9))
    assert sure == {f"sub-{n:02d}_ct": str(n) for n in range(1, 9)}
    assert doubts == {"sub-12_run-3_ct": ""}
    assert read([f"sub-0{n}_ses-1" for n in (1, 2, 3)], [1]) == (
        {"sub-01_ses-1": "1"}, {"sub-02_ses-1": "", "sub-03_ses-1": ""},
    )  # fmt: skip
    assert read(["sub-1_acq-2_ct", "sub-2_acq-1_ct", "sub-9_acq-1_ct"], [1, 2])[0] == {
        "sub-1_acq-2_ct": "1", "sub-2_acq-1_ct": "2",
    }  # fmt: skip
    assert read(["p1_run-3", "p2_ses_1_run_2"], [1, 2, 3]) == ({}, {"p1_run-3": "", "p2_ses_1_run_2": ""})


@pytest.mark.parametrize("ids", [("sub-01", "sub-02"), ("01", "2"), ("1", "sub_2")])
def test_sub_may_stand_in_the_table_or_not(ids):
    sure, doubts = read(["sub-01_ses-2_ct", "sub-02_ct"], ids)
    assert sure == dict(zip(("sub-01_ses-2_ct", "sub-02_ct"), (i.lstrip("0") for i in ids), strict=True))
    assert not doubts


def test_a_number_that_is_the_same_in_all_names_is_no_patient():
    sure, doubts = read(["P_01_s_1", "P_02_s_1", "P_03_s_1"], [1])
    assert sure == {"P_01_s_1": "1"} and set(doubts) == {"P_02_s_1", "P_03_s_1"}
    assert read([f"scan_{n}_1" for n in range(1, 9)], range(1, 9))[0] == {f"scan_{n}_1": str(n) for n in range(1, 9)}
    # one patient alone: nothing else tells
    assert read(["ct_7_a", "ct_7_b"], [7])[0] == {"ct_7_a": "7", "ct_7_b": "7"}


@pytest.mark.parametrize("patients", [2, 3, 8])
def test_names_with_ids_at_two_places_are_nobodys_where_these_disagree(patients):
    names = [f"P_{p}_{run}" for p, run in itertools.product(range(1, patients + 1), (1, 2))]
    sure, doubts = read(names, range(1, patients + 1))
    assert sure == {"P_1_1": "1", "P_2_2": "2"}
    assert doubts["P_2_1"].startswith(
        "ids fit its name at several places (2 at word 2, 1 at word 3); say whose it is in"
    )


def test_a_name_of_no_id_of_the_table_is_not_taken_for_the_patient_of_another_number_in_it():
    names = [f"pat_{n:02d}_ct" for n in range(1, 9)] + ["pat_12_3_ct"]
    sure, doubts = read(names, range(1, 9))
    assert sure == {f"pat_{n:02d}_ct": str(n) for n in range(1, 9)}
    assert doubts["pat_12_3_ct"].startswith(
        "its name fits patient 3 by word 2 from the end, and nobody by the word after 'pat' (12); say whose"
    )
    # and not when most of the names are like that
    names = [f"P_{n}_a" for n in range(1, 9)] + [f"P_{n}_{run}" for n in range(9, 29) for run in (1, 2, 3)]
    sure, doubts = read(names, range(1, 9))
    assert sure == {f"P_{n}_a": str(n) for n in range(1, 9)} and len(doubts) == 60
    # nor where the other place tells of more patients
    names = [f"P_{n}_{run}" for n in (1, 2, 9) for run in range(1, 9)]
    sure, doubts = read(names, range(1, 9))
    assert sure == {"P_1_1": "1", "P_2_2": "2"}
    assert "fits patient 3 by" in doubts["P_9_3"] and "nobody by the word after 'P' (9)" in doubts["P_9_3"]


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (("ct_1001_image", "ct_1002_image", "ct_1002_b", "ct_7"), (1001, 1002, 7)),
        (("ct_1001_image", "ct_1002_7_image", "ct_1003_2019_image", "ct_1004_image"), (1001, 1002, 1003, 1004)),
        (("7", "17", "027"), (7, 17, 27)),
        (("P 07 early", "P 08 late phase"), ("P 07", "P 08")),
        (("P.2 early", "P.3 early"), ("P.2 early", "P.3 early")),
        (("a_scan_1001", "b_c_scan_1002"), (1001, 1002)),
        (("Meier_1001", "von_der_Alm_1002"), (1001, 1002)),
        (("anna_image", "ben_image_2"), ("anna", "ben")),
        (("1001_ct_1001", "1002_ct_1002"), (1001, 1002)),
        (("-",), ("-",)),
    ],
)  # fmt: skip
def test_an_id_is_found_at_any_place_that_all_names_share(names, ids):
    sure, doubts = read(names, ids)
    assert not doubts
    for name, patient in sure.items():
        assert mentioned(patient, name)


def test_every_patient_of_every_place_is_found_whatever_stands_around_it():
    ids = [f"{n:03d}" for n in range(1, 30)]
    for shape in (
        "{}",
        "ct_{}",
        "{}_ct",
        "a b-{}.x",
        "sub-{}_ses-4",
        "x_run-2_{}",
        "sub-{}_run-{run}",
        "v_3_{}",
        "ses-1_{}",
    ):
        names = {shape.format(own, run=int(own) % 4): own.lstrip("0") for own in ids}
        assert read(names, ids) == (names, {}), shape


def test_names_without_one_place_in_common_are_not_joined():
    sure, doubts = read(["ct_1001_a", "ct_1002_a", "1003_ct_a"], (1001, 1002, 1003))
    assert sure == {"ct_1001_a": "1001", "ct_1002_a": "1002"}
    assert doubts["1003_ct_a"].startswith(
        "in most names the id is the word after 'ct'; here that is a; say whose it is"
    )


def test_a_lone_number_that_is_an_id_too_makes_its_own_name_doubtful_and_no_other():
    sure, doubts = read(["ct_2001_2019", "ct_2002_2018", "ct_2003_2001"], (2001, 2002, 2003))
    assert sure == {"ct_2001_2019": "2001", "ct_2002_2018": "2002"}
    assert doubts["ct_2003_2001"].startswith("ids fit its name at several places (2003 at word 2, 2001 at word 3); ")


def test_a_table_of_one_patient_does_not_draw_all_scans_to_it():
    sure, doubts = read(["P_01_s_1", "P_02_s_1", "P_03_s_2"], [1])
    assert sure == {"P_01_s_1": "1"} and set(doubts) == {"P_02_s_1", "P_03_s_2"}


def test_names_that_are_ids_as_a_whole_are_read_as_a_whole():
    assert read(["1", "2", "1-2"], ["1", "2", "1-2"]) == ({"1": "1", "2": "2", "1-2": "1-2"}, {})


def test_two_spellings_that_one_name_fits_are_both_named():
    readings = read_names([Path("1-2_ct.nii"), Path("3_ct.nii")], ["1", "1-2", "3"])
    assert [sorted(own.patients) for own in readings.values()] == [["1", "1-2"], ["3"]]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_are_the_same_however_they_are_stored(form):
    name = unicodedata.normalize(form, "ct_Müller1001_José")
    assert (
        read([name, "ct_Å2_x"], [unicodedata.normalize("NFC", "Müller1001"), unicodedata.normalize("NFD", "Å2")])[1]
        == {}
    )


def test_an_id_is_mentioned_as_words_and_numbers_not_as_parts_of_words():
    names = ["7", "scan-017_a", "sub-01_ct", "sub-011_ct", "P.2 early", "x27"]
    expected = {
        "7": [0], "07": [0], "17": [1], "sub-01": [2], "sub-1": [2], "sub_011": [3], "P.2": [4], "27": [], "1": [2],
        "sub": [2, 3], "-": [],
    }  # fmt: skip
    assert {own: [i for i, name in enumerate(names) if mentioned(own, name)] for own in expected} == expected
