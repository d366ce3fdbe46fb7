"""Label policies: the shipped files give the published counts and lists; a wrong file is refused in one clear error."""

import json
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
from tiny_imagechd import known_flags

from monai_chd.cohort.rules import RULES, UNDETERMINED, load_rule
from monai_chd.labels import CLASSES, FLAGS

LIST_72 = {
    "Cyanotic": """
        1008 1010 1012 1015 1028 1037 1046 1050 1064 1074 1085 1092 1099 1105 1111 1113 1120 1125 1129 1141
        1145 1146 1147 1150 1158 1178""",
    "Non-Cyanotic": """
        1001 1002 1007 1011 1014 1018 1019 1020 1025 1029 1033 1035 1036 1041 1047 1061 1070 1079 1103 1109
        1132 1133 1135 1139 1140 1148""",
    "Normal": """
        1003 1005 1032 1051 1062 1063 1066 1067 1072 1078 1080 1083 1101 1116 1117 1119 1127 1128 1143 1144""",
}
LIST_57 = {
    "Cyanotic": """
        1010 1012 1015 1028 1037 1050 1064 1074 1085 1092 1099 1111 1113 1120 1129 1145 1146 1147""",
    "Non-Cyanotic": """
        1001 1002 1007 1011 1014 1018 1019 1020 1025 1029 1033 1035 1036 1041 1047 1061 1070 1079 1103 1132""",
    "Normal": LIST_72["Normal"].replace("1119", ""),
}
"""Ids as printed in the collected facts on ImageCHD."""

COUNTS = {
    "strict": (36, 40, 21, 13),
    "conventional": (43, 40, 21, 6),
    "all-cyanotic": (49, 40, 21, 0),
    "public72": (26, 26, 20, 38),
    "seed57": (18, 20, 19, 53),
}
"""Cyanotic, non-cyanotic, normal, left out."""


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


def by_flags(flags) -> str | None:
    return load_rule("strict").deciding_step(flags).label


def sound(**changes) -> dict:
    """A rule that is right, with some keys changed; None takes a key out."""
    rule = {
        "name": "mine",
        "description": "for a test",
        "steps": [
            {"flags": ["PA"], "class": "Cyanotic"},
            {"flags": ["DORV"], "class": "undetermined", "reason": "is anybody's guess"},
            {"flags": [flag for flag in FLAGS if flag not in ("PA", "DORV")], "class": "Non-Cyanotic"},
        ],
        **changes,
    }
    return {key: value for key, value in rule.items() if value is not None}


def steps(**first) -> list[dict]:
    """Steps of a rule that is right but for the first, which does not name PA any more."""
    return [first, *sound()["steps"][1:]]


def written(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


# the schema


def test_the_schema_has_the_classes_and_flags_of_labels():
    step = RULES.schema["properties"]["steps"]["items"]["properties"]
    assert step["flags"]["items"]["enum"] == list(FLAGS)
    assert step["class"]["enum"] == [*CLASSES, UNDETERMINED]
    assert list(RULES.schema["properties"]["ids"]["properties"]) == list(CLASSES)


# the rules that come with the package


def test_five_rules_come_with_the_package_and_the_default_is_strict():
    assert set(RULES.names) == set(COUNTS)
    assert load_rule().name == "strict"


@pytest.mark.parametrize("name", COUNTS)
def test_each_file_bears_its_name(name):
    assert load_rule(name).name == name


@pytest.mark.parametrize("name", COUNTS)
def test_imagechds_counts_are_those_of_the_published_table(name):
    rule = load_rule(name)
    classes = Counter(rule.verdict(patient, flags)[0] for patient, flags in known_flags().items())
    assert tuple(classes[label] for label in ("Cyanotic", "Non-Cyanotic", "Normal", None)) == COUNTS[name]


@pytest.mark.parametrize(("name", "listed"), [("public72", LIST_72), ("seed57", LIST_57)])
def test_a_fixed_list_holds_exactly_the_published_ids(name, listed):
    expected = {patient: label for label, ids in listed.items() for patient in ids.split()}
    assert load_rule(name).ids == expected
    rule = load_rule(name)
    for patient, flags in known_flags().items():
        label, reason = rule.verdict(patient, flags)
        assert label == expected.get(patient)
        assert bool(reason) == (label is None)


@pytest.mark.parametrize("label", PUBLISHED, ids=str)
def test_every_class_of_strict_holds_exactly_the_published_ids(label):
    assert {patient for patient, flags in known_flags().items() if by_flags(flags) == label} == set(
        PUBLISHED[label].split()
    )


@pytest.mark.parametrize("decisive", ["ToF", "TGA", "CAT", "PA"])
def test_a_cyanotic_lesion_decides_whatever_else_is_listed(decisive):
    for size in (0, 1, 2, len(FLAGS)):
        for others in combinations(FLAGS, size):
            assert by_flags({decisive, *others}) == "Cyanotic"


@pytest.mark.parametrize("ambiguous", ["DORV", "APVC"])
def test_an_ambiguous_lesion_leaves_the_class_open_beside_any_acyanotic_one(ambiguous):
    acyanotic = ["ASD", "VSD", "AVSD", "CA", "AAH", "DAA", "IAA", "DSVC", "PDA", "PAS"]
    for size in (0, 1, 2, len(acyanotic)):
        for others in combinations(acyanotic, size):
            assert by_flags({ambiguous, *others}) is None


@pytest.mark.parametrize("flag", ["ASD", "VSD", "AVSD", "CA", "AAH", "DAA", "IAA", "DSVC", "PDA", "PAS"])
def test_any_other_lesion_alone_is_noncyanotic(flag):
    assert by_flags([flag]) == "Non-Cyanotic"


def test_no_flag_is_normal_and_order_and_repetition_do_not_matter():
    assert by_flags([]) == "Normal"
    assert by_flags(["VSD", "PA"]) == by_flags(["PA", "VSD", "VSD"]) == "Cyanotic"


@pytest.mark.parametrize("name", ["TOF", "PuA", "tof", ""])
def test_a_name_that_is_no_flag_is_refused_not_taken_for_acyanotic(name):
    with pytest.raises(ValueError, match=f"unknown diagnosis flag {name}: expected names out of ASD, VSD"):
        by_flags(["VSD", name])


def test_conventional_and_all_cyanotic_move_exactly_dorv_and_apvc():
    def cyanotic(name):
        return {p for p, flags in known_flags().items() if load_rule(name).verdict(p, flags)[0] == "Cyanotic"}

    assert cyanotic("conventional") - cyanotic("strict") == {"1008", "1021", "1042", "1044", "1056", "1112", "1138"}
    assert cyanotic("all-cyanotic") - cyanotic("conventional") == {"1004", "1023", "1075", "1110", "1121", "1170"}


def test_conflicts_of_a_list_with_the_flags_are_named():
    assert load_rule("public72").conflicts(known_flags()) == [
        "rule public72: 1008 is listed as Cyanotic, the table has DORV (undetermined class)",
        "rule public72: 1047 is listed as Non-Cyanotic, the table has no flag (Normal)",
    ]
    assert [text.split()[2] for text in load_rule("seed57").conflicts(known_flags())] == ["1047"]
    assert load_rule("strict").conflicts(known_flags()) == []


def test_listed_patients_who_are_not_in_the_table_are_named():
    table = {patient: flags for patient, flags in known_flags().items() if patient not in ("1010", "1178")}
    assert load_rule("public72").conflicts(table)[-1].endswith("2 listed patients are not in the table (1010, 1178)")


def test_seed57_says_that_it_is_what_the_replaced_pipeline_called_59_patients():
    assert "59 patients" in load_rule("seed57").description


def test_an_open_class_comes_with_the_flags_and_the_reason():
    label, reason = load_rule("strict").verdict("1021", ("VSD", "DORV"))
    assert label is None
    assert reason.startswith("undetermined: VSD+DORV is cyanotic with pulmonary stenosis")


# a user's own file


def test_a_file_of_ones_own_is_read_by_path(tmp_path):
    rule = load_rule(written(tmp_path / "mine.json", sound()))
    assert rule.verdict("x", ("VSD", "PA"))[0] == "Cyanotic"
    assert rule.verdict("x", ("VSD", "ToF"))[0] == "Non-Cyanotic"
    assert rule.verdict("x", ("DORV",)) == (None, "undetermined: DORV is anybody's guess")
    assert rule.verdict("x", ())[0] == "Normal"


def test_ids_of_a_list_may_be_numbers_or_text(tmp_path):
    rule = load_rule(written(tmp_path / "a.json", sound(ids={"Normal": [7, "a"]})))
    assert rule.ids == {"7": "Normal", "a": "Normal"}


WRONG = {
    "not an object": ([], "expected an object, got []"),
    "no steps": (sound(steps=None), 'key "steps" is missing (tried in order; '),
    "no name": (sound(name=None), 'key "name" is missing (what to call the rule)'),
    "empty description": (sound(description=""), 'description: expected text that is not empty, got ""'),
    "unknown key": (sound(step=[]), 'unknown key "step"; known: name, description, cohort, steps, ids'),
    "unknown cohort": (sound(cohort="ACDC"), 'cohort: expected ImageCHD, got "ACDC"'),
    "no list of steps": (sound(steps={}), "steps: expected a list, got {}"),
    "no step": (sound(steps=[]), "steps: expected a list of one or more, got []"),
    "a step in words": (sound(steps=["PA"]), 'steps 1: expected an object, got "PA"'),
    "no class": (sound(steps=steps(flags=["PA"])), 'steps 1: key "class" is missing (what a patient'),
    "no flags": (
        sound(steps=steps(flags=[], **{"class": "Cyanotic"})),
        "steps 1, flags: expected a list of one or more, got []",
    ),
    "unknown flag": (
        sound(steps=steps(flags=["PuA"], **{"class": "Cyanotic"})),
        "steps 1, flags 1: expected one of ASD, VSD, AVSD, ToF, TGA, DORV, CAT, CA, AAH, DAA, IAA, PA, APVC, DSVC, PDA, PAS, "
        'got "PuA"',
    ),
    "a flag twice": (
        sound(steps=steps(flags=["PA", "PA"], **{"class": "Cyanotic"})),
        'steps 1, flags: expected every entry once, got ["PA", "PA"]',
    ),
    "unknown class": (
        sound(steps=steps(flags=["PA"], **{"class": "blue"})),
        'steps 1, class: expected one of Cyanotic, Non-Cyanotic, Normal, undetermined, got "blue"',
    ),
    "no reason": (
        sound(steps=steps(flags=["PA"], **{"class": "undetermined"})),
        'steps 1: key "reason" is missing (undetermined needs a reason in words)',
    ),
    "a list of no class": (sound(ids={"blue": [1]}), 'ids: unknown key "blue"; known: Cyanotic, Non-Cyanotic, Normal'),
    "no list": (sound(ids={}), "ids: expected one key or more, got {}"),
    "an empty list": (sound(ids={"Normal": []}), "ids, Normal: expected a list of one or more, got []"),
    "a list of lists": (sound(ids={"Normal": [[1]]}), "ids, Normal 1: expected a whole number or text, got [1]"),
    "overlapping": (
        sound(steps=steps(flags=["PA", "VSD"], **{"class": "Cyanotic"})),
        "flag VSD stands in steps 1 and 3",
    ),
    "a flag in no step": (sound(steps=sound()["steps"][1:]), "no step names PA; every flag needs a class"),
    "an id in two lists": (sound(ids={"Normal": [1, 2], "Cyanotic": ["1"]}), "ids: 1 listed more than once"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_rule_is_refused_with_file_and_fault(tmp_path, case):
    content, fault = WRONG[case]
    path = written(tmp_path / "mine.json", content)
    with pytest.raises(ValueError) as caught:
        load_rule(path)
    assert str(caught.value).startswith(f"{path}: not a rule: ")
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_faults_are_said_at_once_those_beyond_the_schema_too(tmp_path):
    first = {"flags": ["PuA"], "class": "blue"}
    content = sound(name=None, more=1, steps=steps(**first), ids={"Normal": [1], "Cyanotic": [1]})
    with pytest.raises(ValueError) as caught:
        load_rule(written(tmp_path / "mine.json", content))
    words = ('"name" is missing', '"more"', '"PuA"', '"blue"', "1 listed more than once")
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize("content", ["{", "strict", ""])
def test_what_is_not_json_is_refused(tmp_path, content):
    with pytest.raises(ValueError, match=r"mine\.json: not a rule, since it is not JSON"):
        load_rule(written(tmp_path / "mine.json", content))


def test_a_name_that_is_neither_rule_nor_file_lists_the_rules():
    with pytest.raises(
        FileNotFoundError, match=r"strictest: no such rule; expected one of .*public72.*strict, or a file"
    ):
        load_rule("strictest")
