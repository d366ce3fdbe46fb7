"""The report is one file that needs nothing else, shows all text as text, and can be used by anybody on any screen."""

import copy
import itertools
import re
import shutil
import subprocess
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tiny_report import make_report

from monai_chd.report.model_card import card
from monai_chd.report.page import NAME, STYLE, page, write_report

VOID = {"br", "hr", "img", "meta", "link", "col", "input"}
"""HTML elements without an end tag."""

NASTY = "<script>alert(1)</script><img src=x onerror=alert(2)> \"q\" 'a' & </title></style></svg> javascript:alert(3)"


class Page(HTMLParser):
    """Elements, attributes and text of a page; unbalanced elements are noted."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.words, self.open, self.faults = [], [], [], [], []
        self.feed(text)
        self.close()
        self.faults += [f"<{tag}> is never closed" for tag in self.open]
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    def all(self, name):
        return [value for _, attributes in self.attributes for key, value in attributes.items() if key == name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cv")


@pytest.fixture(scope="module")
def report(folder):
    return make_report(folder)


@pytest.fixture(scope="module")
def written(report, folder):
    return write_report(report, folder)


@pytest.fixture(scope="module")
def read(written):
    return Page(written.read_text(encoding="utf-8"))


def test_the_page_needs_nothing_from_outside(read, written):
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(read.tags)
    assert all(value.startswith("data:image/png;base64,") for value in read.all("src"))
    assert all(value.startswith("#") for value in read.all("href"))
    assert not [name for _, attributes in read.attributes for name in attributes if name.startswith("on")]
    assert "url(" not in written.read_text() and "@import" not in written.read_text()


def test_the_page_forbids_itself_to_load_anything(read):
    (policy,) = [
        a["content"] for tag, a in read.attributes if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_elements_are_balanced_and_ids_are_unique(read):
    assert read.faults == []
    ids = read.all("id")
    assert len(ids) == len(set(ids))


def test_every_link_and_label_has_its_target(read):
    ids = set(read.all("id"))
    assert {value[1:] for value in read.all("href")} <= ids and set(read.all("aria-labelledby")) <= ids


def test_language_title_viewport_and_one_main_heading(read, report):
    assert read.attributes[0] == ("html", {"lang": "en"})
    assert read.tags.count("h1") == read.tags.count("main") == 1 and read.tags.count("nav") == 1
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in [a for _, a in read.attributes]
    assert read.text.startswith(report["title"])


def test_headings_do_not_skip_a_level(read):
    levels = [int(tag[1]) for tag in read.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_pictures_have_a_text_alternative_or_are_hidden(read):
    for tag, attributes in read.attributes:
        if tag == "img":
            assert attributes["alt"].strip()
        if tag == "svg":
            hidden = attributes.get("aria-hidden") == "true"
            assert hidden or (attributes["role"] == "img" and len(attributes["aria-label"]) > 20)


def test_what_scrolls_can_be_reached_by_keyboard_and_has_a_name(read):
    regions = [a for _, a in read.attributes if a.get("class") == "scroll"]
    assert regions and all(a["tabindex"] == "0" and a["role"] == "region" and a["aria-label"].strip() for a in regions)
    first_link = next(a for tag, a in read.attributes if tag == "a")
    assert first_link == {"href": "#main", "class": "skip"}


def test_no_text_of_a_user_becomes_an_element_or_an_attribute(tmp_path):
    pages = {}
    for name, words in (("plain", " plain words"), ("nasty", f" {NASTY}")):
        (tmp_path / name).mkdir()
        report = make_report(tmp_path / name, words=words)
        pages[name] = Page(write_report(report, tmp_path / name).read_text(encoding="utf-8"))
    assert pages["nasty"].tags == pages["plain"].tags and pages["nasty"].faults == []
    shapes = [[(tag, sorted(attributes)) for tag, attributes in pages[name].attributes] for name in pages]
    assert shapes[0] == shapes[1]
    assert pages["nasty"].text.count(NASTY) == pages["plain"].text.count("plain words") >= 30


def test_the_sections_of_the_issue_are_all_there_in_order(read):
    assert [a["id"] for tag, a in read.attributes if tag == "section"] == [
        "summary", "cohort", "design", "results", "confusion", "curves", "calibration", "abstention", "lesions",
        "structures", "controls", "comparison", "mistakes", "training", "audit", "provenance", "card", "checklists",
    ]  # fmt: skip


def test_diagnoses_as_a_second_task_are_told_with_their_intervals(read, report):
    assert "How well each diagnosis is told" in read.text and "The second opinion, first repeat" in read.text
    assert "which leaves 3 scans open" in read.text and "where they differ" not in read.text
    without = page({**report, "flags": None})
    assert "The model does not name diagnoses." in without and "second opinion" not in without


def test_structures_are_measured_and_said_to_be_blind_where_they_are(read, report):
    assert "0.940" in read.text and "Dice on patients not trained on" in read.text
    assert "atrial septal defect (ASD; 7 patients, 5 with nothing else)" in read.text
    assert "not shown to be better than a random order" in read.text and "2 (no heart is found)" in read.text
    without = page({**report, "structures": None})
    assert "Not in this report: structures: the classifier reads none." in without


def test_audit_provenance_card_and_checklists_tell_what_the_report_holds(read, report):
    assert "No leak found." in read.text and report["audit"]["warnings"][0] in read.text
    assert "40% (95% interval 25% to 57%; n = 33 patients)" in read.text
    facts = report["provenance"]
    for value in (facts["command"], facts["processor"], *facts["versions"].values(), *facts["hashes"].values()):
        assert value in read.text
    assert "embedding 73.2 s" in read.text and "fits 1 h 10 min" in read.text and "whole run 2 h 13 min" in read.text
    assert all(statement in read.text for part in card(report) for statement in part.statements)
    assert "CLAIM 2024" in read.text and "TRIPOD+AI" in read.text and "10.1148/ryai.240300" in read.text


def test_a_leak_is_said_first_and_plainly(report):
    leak = {
        "kind": "byte duplicate",
        "images": ["a.nii", "b.nii"],
        "patients": ["1", "2"],
        "places": ["fold 0", "test"],
    }
    text = Page(page({**report, "worst_cases": [], "audit": {**report["audit"], "leakage": [leak]}})).text
    assert "1 leaks found: the figures cannot be trusted." in text
    assert "byte duplicate: a.nii (patient 1, fold 0) and b.nii (patient 2, test)" in text


def test_checklists_given_in_the_report_are_shown_as_they_are(report):
    own = {
        "CLAIM 2024": [{"item": "7", "section": "s", "text": "asks", "status": "user", "where_or_todo": "my own words"}]
    }
    text = Page(page({**report, "worst_cases": [], "checklists": own})).text
    assert "my own words" in text and "TRIPOD+AI, items" not in text


def test_many_hashes_are_folded_away(report):
    facts = {**report["provenance"], "hashes": {f"ct_{n}.nii.gz": "ef" * 32 for n in range(110)}}
    read = Page(page({**report, "worst_cases": [], "provenance": facts}))
    assert read.tags.count("details") == 1 and "110 files" in read.text and read.text.count("ef" * 32) == 110


def test_a_report_without_its_optional_parts_is_written_and_says_so(report, tmp_path):
    bare = {key: report[key] for key in ("title", "design", "results", "cohort")}
    read = Page(write_report(bare, tmp_path).read_text(encoding="utf-8"))
    assert read.faults == []
    for part in (
        "controls",
        "comparison with another model",
        "the worst mistakes",
        "learning curves",
        "an audit",
        "run time",
    ):
        assert f"Not in this report: {part}" in read.text


@pytest.mark.parametrize("key", ["title", "cohort", "design", "results"])
@pytest.mark.parametrize("nothing", [None, {}, ""])
def test_a_report_without_a_needed_part_is_refused(report, tmp_path, key, nothing):
    with pytest.raises(ValueError, match=f"report.html: the report lacks {key}; expected the content of report.json"):
        write_report({**report, key: nothing}, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname"])
def test_a_sheet_outside_of_the_folder_is_refused(report, tmp_path, name):
    (tmp_path / "secret.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "cv").mkdir()
    case = {**report["worst_cases"][0], "sheet": name}
    with pytest.raises(ValueError, match="the sheet of patient 1001 lies outside of"):
        write_report({**report, "worst_cases": [case]}, tmp_path / "cv")


def test_a_sheet_that_is_missing_or_no_picture_is_named(report, tmp_path):
    case = {**report["worst_cases"][0], "sheet": "cases/x.png"}
    with pytest.raises(FileNotFoundError, match=r"x\.png: no such sheet, though the report names it for patient 1001"):
        write_report({**report, "worst_cases": [case]}, tmp_path)
    (tmp_path / "cases").mkdir()
    (tmp_path / "cases" / "x.png").write_text("<svg onload=alert(1)>")
    with pytest.raises(ValueError, match=r"x\.png: expected a PNG"):
        write_report({**report, "worst_cases": [case]}, tmp_path)
    assert not (tmp_path / NAME).exists()


def test_an_old_report_is_replaced_and_nothing_else_is_left(report, folder, written):
    before, files = written.read_bytes(), sorted(folder.rglob("*"))
    written.write_text("old")
    assert write_report(report, folder) == written and written.read_bytes() == before
    assert sorted(folder.rglob("*")) == files


def test_a_report_that_cannot_be_written_to_the_end_leaves_the_old_one(report, folder, written, monkeypatch):
    before, whole = written.read_bytes(), Path.write_text

    def half(self, data, **options):
        whole(self, data[:100], **options)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(ValueError, match=r"report\.html: cannot be written \(No space left"):
        write_report(report, folder)
    assert written.read_bytes() == before and not list(folder.glob(".*"))


def test_a_file_name_that_is_no_text_does_not_stop_the_report(report, tmp_path):
    odd = {**report, "worst_cases": [], "title": "scan \udcff"}
    assert "scan \\udcff" in write_report(odd, tmp_path).read_text(encoding="utf-8")


def test_the_report_itself_is_not_changed(report, folder):
    before = copy.deepcopy(report)
    write_report(report, folder)
    assert report == before


def test_five_by_five_of_110_patients_takes_under_three_seconds_and_a_megabyte(report, tmp_path):
    big = copy.deepcopy(report)
    big["training"] = [{**fit, "repeat": r} for r in range(5) for fit in big["training"][:5]]
    big["provenance"]["hashes"] = {f"ct_{n}.nii.gz": "ef" * 32 for n in range(110)}
    for case in big["worst_cases"]:
        case["sheet"] = None
    started = time.perf_counter()
    path = write_report(big, tmp_path)
    assert time.perf_counter() - started < 3 and path.stat().st_size < 1e6


def schemes():
    """Custom properties of the style sheet: light, dark and print."""
    css = STYLE.read_text()
    roots = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    found = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})", root)) for root in roots]
    assert len(found) == 3 and "prefers-color-scheme: dark" in css and "@media print" in css
    return dict(zip(("light", "dark", "print"), found, strict=True))


def contrast(one, two):
    """Contrast ratio of two colours, WCAG 2.2."""
    values = []
    for colour in (one, two):
        digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
        linear = [
            v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4
            for v in (int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
        ]
        values.append(sum(weight * v for weight, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True)))
    return (max(values) + 0.05) / (min(values) + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_text_and_curves_stand_out_from_every_background(scheme):
    colours = schemes()[scheme]
    assert contrast("#000000", "#fff") == pytest.approx(21)
    for text in ("ink", "quiet", "link", "good", "part", "todo"):
        for behind in ("page", "raised"):
            assert contrast(colours[text], colours[behind]) >= 4.5, (text, behind)
    assert contrast(colours["ink"], colours["warn"]) >= 4.5
    for curve in ("c0", "c1", "c2"):
        assert contrast(colours[curve], colours["page"]) >= 3, curve


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def console(path, tmp_path):
    """What headless Chromium writes to its console on opening a page."""
    command = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={tmp_path / 'profile'}",
        "--enable-logging=stderr", "--virtual-time-budget=2000", f"--screenshot={tmp_path / 'shot.png'}", path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert (tmp_path / "shot.png").stat().st_size > 1000
    return [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_has_nothing_to_complain_about(written, tmp_path):
    assert console(written, tmp_path) == []
    spoilt = tmp_path / "spoilt.html"
    spoilt.write_text(
        written.read_text(encoding="utf-8").replace("</main>", "<script>alert(1)</script></main>"), encoding="utf-8"
    )
    assert console(spoilt, tmp_path)  # so that the silence above means something
