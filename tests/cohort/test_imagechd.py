"""What the package knows of ImageCHD: the published counts and tiers, and whether a table is ImageCHD's."""

from collections import Counter

import pytest
from tiny_imagechd import known_flags

from monai_chd.cohort import imagechd
from monai_chd.labels import FLAGS

RELEASED = dict(
    zip(FLAGS, (32, 36, 0, 12, 5, 7, 4, 7, 3, 5, 3, 15, 6, 8, 13, 2), strict=True)
)  # fmt: skip
TIERS = {
    "A": "1072 1101",
    "B": "1003 1047 1063",
    "C1": "1032 1062 1066 1080 1083 1116 1117 1127 1128",
    "C2": "1005 1051 1067 1078 1119 1143 1144",
}
"""Counts of each flag, and unflagged ids by what other sources say of them, as printed in the collected facts."""


def test_the_counts_of_the_packages_data_are_the_published_ones():
    counts = Counter(flag for known in imagechd.patients().values() for flag in known.flags)
    assert {flag: counts[flag] for flag in FLAGS} == RELEASED
    assert len(imagechd.patients()) == 110
    assert {patient: known.flags for patient, known in imagechd.patients().items()} == known_flags()


def test_tiers_hold_exactly_the_published_ids():
    for tier, ids in TIERS.items():
        assert {p for p, known in imagechd.patients().items() if known.tier == tier} == set(ids.split())
    assert sum(bool(known.tier) for known in imagechd.patients().values()) == 21


def test_one_volume_is_cropped_and_one_is_without_contrast():
    shapes = {patient: known.shape for patient, known in imagechd.patients().items()}
    assert shapes["1081"] == (181, 170, 249)
    assert Counter(shape[:2] for shape in shapes.values()).most_common(1)[0][1] == 109
    assert {max(shapes.values(), key=lambda s: s[2])[2], min(shapes.values(), key=lambda s: s[2])[2]} == {137, 622}
    assert [patient for patient in shapes if imagechd.contrast(patient) is False] == ["1063"]
    assert imagechd.contrast("7") is None


# is it ImageCHD?


def test_the_table_as_released_and_a_large_part_of_it_are_imagechds():
    flags = known_flags()
    assert imagechd.mismatch(flags) == ""
    assert imagechd.mismatch(dict(list(flags.items())[:30])) == ""


def test_other_ids_other_flags_or_too_few_are_not():
    flags = known_flags()
    assert "19 of its 19 ids" in imagechd.mismatch(dict(list(flags.items())[:19]))
    assert "0 of its 110 ids" in imagechd.mismatch({f"p{patient}": own for patient, own in flags.items()})
    turned = dict(zip(flags, reversed(flags.values()), strict=True))
    assert "its ids are those of ImageCHD, but only" in imagechd.mismatch(turned)
    # the phantom numbers its patients from 1001 without a gap
    assert "ids are ids of ImageCHD" in imagechd.mismatch({str(1001 + i): () for i in range(110)})


def test_a_table_as_released_has_no_differences_and_another_cohorts_are_not_looked_for():
    assert imagechd.differences(known_flags()) == []
    assert imagechd.differences({f"p{i}": () for i in range(110)}) == []
    # ids of ImageCHD alone are anybody's: a phantom numbers its patients from 1001, too
    phantom = {str(1001 + i): [("ToF",), ("ASD",), ()][i % 3] for i in range(24)}
    assert imagechd.differences(phantom) == []


def test_differences_are_named_by_flag_and_patient():
    flags = known_flags()
    flags["1002"] = ()
    flags["1010"] = ("ToF", "VSD", "PAS")
    assert imagechd.differences(flags) == [
        "VSD: 36 patients, 36 in ImageCHD as released; they differ in 1002, 1010",
        "PAS: 3 patients, 2 in ImageCHD as released; they differ in 1010",
    ]
    del flags["1178"]
    flags["2000"] = ()
    lacks, has, *_ = imagechd.differences(flags)
    assert lacks == "the table lacks 1 of ImageCHD's 110 patients: 1178"
    assert has == "the table has 1 patients that ImageCHD has not: 2000"


# who is normal?


@pytest.mark.parametrize(
    ("normal", "tiers"), [("unflagged", "A B C1 C2"), ("uncontradicted", "A B"), ("confirmed", "A")]
)
def test_each_kind_of_normal_keeps_exactly_its_tiers(normal, tiers):
    unflagged = [patient for patient, flags in known_flags().items() if not flags]
    kept = {patient for patient in unflagged if not imagechd.exclusion_reason(patient, normal)}
    assert kept == {patient for tier in tiers.split() for patient in TIERS[tier].split()}


def test_the_reason_holds_the_evidence():
    assert imagechd.exclusion_reason("1083", "confirmed") == (
        "no listed diagnosis: tier C1 (CHD68 lists TGA; 2021 re-review lists VSD), left out by normal=confirmed"
    )
    assert "tier C2 (not in CHD68; 2021 re-review lists VSD; its remark: no myo)" in imagechd.exclusion_reason(
        "1005", "uncontradicted"
    )
    assert "tier B (not in CHD68; 2021 re-review lists nothing" in imagechd.exclusion_reason("1003", "confirmed")
    assert imagechd.exclusion_reason("2000", "unflagged") == ""
    # flagged in ImageCHD, without a flag in the user's table: nobody confirms it
    assert "not among the patients" in imagechd.exclusion_reason("1010", "uncontradicted")
