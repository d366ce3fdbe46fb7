"""The clinical rule against the published id lists of ImageCHD, and its laws over all combinations of flags."""

import csv
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from monai_chd.labels import CLASSES, FLAGS, strict_class

TABLE = Path(__file__).parent / "data" / "imagechd_flags.csv"

PUBLISHED = {
    "Cyanotic": """
        1010 1012 1015 1028 1030 1037 1043 1046 1050 1052 1059 1060 1064 1074 1085 1091 1092 1098 1099 1102 1105 1111
        1113 1120 1122 1124 1125 1129 1141 1145 1146 1147 1150 1158 1161 1178""",
    "Non-Cyanotic": """
        1001 1002 1007 1011 1013 1014 1016 1017 1018 1019 1020 1022 1024 1025 1029 1033 1035 1036 1039 1041 1048 1053
        1054 1061 1070 1077 1079 1081 1088 1103 1106 1109 1114 1126 1132 1133 1135 1139 1140 1148""",
    None: "1008 1021 1042 1044 1056 1112 1138 1004 1023 1075 1110 1121 1170",
    "Normal": """
        1003 1005 1032 1047 1051 1062 1063 1066 1067 1072 1078 1080 1083 1101 1116 1117 1119 1127 1128 1143 1144""",
}
"""Ids by class as printed in the collected facts on ImageCHD (strict rule; no flag; undetermined)."""


def imagechd_rows() -> list[dict[str, str]]:
    with TABLE.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_flags_are_the_sixteen_columns_of_the_workbook_in_its_order():
    assert tuple(imagechd_rows()[0])[1:] == FLAGS


def test_imagechd_gives_36_cyanotic_40_noncyanotic_13_undetermined_and_21_unflagged():
    rows = imagechd_rows()
    classes = Counter(strict_class(flag for flag in FLAGS if row[flag] == "1") for row in rows)
    assert classes == {"Cyanotic": 36, "Non-Cyanotic": 40, None: 13, "Normal": 21}
    assert len(rows) == 110


@pytest.mark.parametrize("label", PUBLISHED, ids=str)
def test_every_class_holds_exactly_the_published_ids(label):
    found = {row["index"] for row in imagechd_rows() if strict_class(f for f in FLAGS if row[f] == "1") == label}
    assert found == set(PUBLISHED[label].split())


def test_the_order_of_classes_is_the_one_that_labels_and_columns_stand_for():
    assert CLASSES == ("Cyanotic", "Non-Cyanotic", "Normal")


@pytest.mark.parametrize("decisive", ["ToF", "TGA", "CAT", "PA"])
def test_a_cyanotic_lesion_decides_whatever_else_is_listed(decisive):
    for size in (0, 1, 2, len(FLAGS)):
        for others in combinations(FLAGS, size):
            assert strict_class({decisive, *others}) == "Cyanotic"


@pytest.mark.parametrize("ambiguous", ["DORV", "APVC"])
def test_an_ambiguous_lesion_leaves_the_class_open_beside_any_acyanotic_one(ambiguous):
    acyanotic = ["ASD", "VSD", "AVSD", "CA", "AAH", "DAA", "IAA", "DSVC", "PDA", "PAS"]
    for size in (0, 1, 2, len(acyanotic)):
        for others in combinations(acyanotic, size):
            assert strict_class({ambiguous, *others}) is None


@pytest.mark.parametrize("flag", ["ASD", "VSD", "AVSD", "CA", "AAH", "DAA", "IAA", "DSVC", "PDA", "PAS"])
def test_any_other_lesion_alone_is_noncyanotic(flag):
    assert strict_class([flag]) == "Non-Cyanotic"


def test_no_flag_is_normal_and_order_and_repetition_do_not_matter():
    assert strict_class([]) == "Normal"
    assert strict_class(["VSD", "PA"]) == strict_class(["PA", "VSD", "VSD"]) == "Cyanotic"


@pytest.mark.parametrize("name", ["TOF", "PuA", "tof", ""])
def test_a_name_that_is_no_flag_is_refused_not_taken_for_acyanotic(name):
    with pytest.raises(ValueError, match=f"unknown diagnosis flag {name}: expected names out of ASD, VSD"):
        strict_class(["VSD", name])
