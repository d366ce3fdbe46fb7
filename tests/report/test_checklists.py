"""Checklist items have the checklists' numbers, are filled only by what a report has, and lead to sections that exist."""

import json

import pytest
from tiny_report import make_report

from monai_chd.report.checklists import FILES, FOLDER, STATUS, fill_checklists, sources
from monai_chd.report.page import page

SUBITEMS = {
    3: "abc",
    5: "ab",
    6: "abc",
    8: "abc",
    9: "abc",
    12: "abcdefg",
    18: "abcdef",
    20: "abc",
    23: "ab",
    27: "abc",
}
"""Items of TRIPOD+AI that have parts (Collins et al., BMJ 2024, table 1)."""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return make_report(tmp_path_factory.mktemp("report"))


def by_number(report, name):
    return {item["item"]: item for item in fill_checklists(report)[name]}


def test_claim_2024_has_items_1_to_44():
    items = fill_checklists({})["CLAIM 2024"]
    assert [item["item"] for item in items] == [str(number) for number in range(1, 45)]


def test_tripod_ai_has_27_items_with_their_parts():
    expected = [f"{n}{part}" for n in range(1, 28) for part in SUBITEMS.get(n, [""])]
    assert [item["item"] for item in fill_checklists({})["TRIPOD+AI"]] == expected


@pytest.mark.parametrize(
    ("name", "number", "word"),
    [
        ("CLAIM 2024", "20", "disjoint"), ("CLAIM 2024", "33", "external"), ("CLAIM 2024", "39", "Failure"),
        ("CLAIM 2024", "44", "Funding"), ("TRIPOD+AI", "14", "fairness"), ("TRIPOD+AI", "19", "Involvement"),
        ("TRIPOD+AI", "23a", "intervals"), ("TRIPOD+AI", "18f", "code"),
    ],
)  # fmt: skip
def test_items_ask_for_what_the_checklist_asks_for(name, number, word):
    assert word in by_number({}, name)[number]["text"]


def test_nothing_is_filled_by_an_empty_report():
    items = [item for found in fill_checklists({}).values() for item in found]
    assert {item["status"] for item in items} == {"user"} and not any("anchor" in item for item in items)
    assert all(item["where_or_todo"].strip() for item in items)


def test_what_only_people_know_is_never_filled(report):
    claim, tripod = by_number(report, "CLAIM 2024"), by_number(report, "TRIPOD+AI")
    for number in ("5", "11", "15", "16", "17", "18", "33", "34", "44"):
        assert claim[number]["status"] == "user", number
    for number in ("5b", "14", "17", "18a", "18b", "18c", "18d", "19", "25"):
        assert tripod[number]["status"] == "user", number


def test_a_whole_report_fills_what_it_holds(report):
    claim = by_number(report, "CLAIM 2024")
    assert {number: claim[number]["status"] for number in ("19", "20", "29", "30", "35", "38", "39")} == {
        "19": "filled", "20": "filled", "29": "filled", "30": "partly", "35": "filled", "38": "filled", "39": "partly",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("empty", "number"), [("controls", "30"), ("worst_cases", "39"), ("audit", "13"), ("training", "26")]
)
@pytest.mark.parametrize("nothing", [None, [], {}, ""])
def test_an_item_whose_part_is_missing_falls_to_the_user_and_says_what_is_missing(report, empty, number, nothing):
    item = by_number({**report, empty: nothing}, "CLAIM 2024")[number]
    assert item["status"] == "user" and f"has no {empty}" in item["where_or_todo"] and "anchor" not in item


def test_every_status_is_explained_and_every_link_leads_to_a_section(report):
    text = page(report, {case["sheet"]: "data:," for case in report["worst_cases"]})
    for item in [item for found in fill_checklists(report).values() for item in found]:
        assert item["status"] in STATUS
        assert ("anchor" in item) == (item["status"] != "user")
        assert "anchor" not in item or f'<section id="{item["anchor"]}"' in text, item


def test_every_item_says_where_it_is_filled_or_what_to_do():
    for name in FILES:
        for item in json.loads((FOLDER / name).read_text())["items"]:
            assert ("where" in item) == ("anchor" in item) == ("needs" in item)
            assert "where" in item or "todo" in item, item
            assert set(item) <= {"item", "section", "text", "where", "anchor", "needs", "todo"}


def test_sources_are_cited():
    assert set(sources()) == {"CLAIM 2024", "TRIPOD+AI"}
    assert "10.1148/ryai.240300" in sources()["CLAIM 2024"]["source"]
    assert "10.1136/bmj-2023-078378" in sources()["TRIPOD+AI"]["source"]


def test_the_result_is_json(report):
    filled = fill_checklists(report)
    assert json.loads(json.dumps(filled)) == filled
