"""The sections of the evaluation report on patients, design, controls, comparison and mistakes, out of report.json's dict.

Chooses words and order; figures of the model are `report_results`', pieces `report_parts`', charts `report_figures`' part.
What the report lacks is named, not skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_chd.cohort.overview import NORMAL_MEANS
from monai_chd.metrics.estimates import Estimate
from monai_chd.metrics.predictions import NOTE
from monai_chd.report.charts import occlusion_bars
from monai_chd.report.contact_sheet import TILE, TITLE_WIDTH
from monai_chd.report.markup import Content, Markup, element
from monai_chd.report.model_card import MODES, words_of
from monai_chd.report.parts import (
    SCALE,
    Report,
    absent,
    bar_cell,
    bullets,
    estimate_cells,
    interval_words,
    method_notes,
    p_words,
    pair_columns,
    pairs,
    percent,
    range_bar,
    row,
    table,
    warning_box,
)
from monai_chd.report.report_charts import (
    SELECTION,
    learning_charts,
)

SIGNIFICANT = 0.05
SMALL = 0.005
"""A change in probability that is shown as 0.00."""
TOLD = ("The right class was given", "Always answering")
"""How sentences begin that the lead already says."""

NOT_EVIDENCE = (
    "Not evidence. A network may answer oddly to a case with a hole in it; a change in probability shows neither what it looked "
    "at nor why it was wrong, and no such map was checked against a radiologist."
)


def summary(report: Report) -> Content:
    """What a clinician has to know, in words and three figures."""
    results, classes = report["results"], report["cohort"]["classes"]
    sentences = [text for text in results.get("sentences") or () if not text.startswith(TOLD)]
    warnings: list[Content] = list(results.get("warnings") or ())
    if remarks := len(report["cohort"].get("warnings") or ()):
        link = element("a", "Patients and labels", href="#cohort")
        warnings.append([f"{remarks} remark{'s' if remarks > 1 else ''} on the data: see ", link, "."])
    return [
        element("p", headline(report), class_="lead"),
        element("p", NOTE, " It has not been tested on patients of another hospital.", class_="device"),
        element("div", _cards(results, len(classes)), class_="cards"),
        element("h3", "In words"),
        bullets([*sentences, *_control_sentences(report)]),
        warning_box("Keep in mind", warnings),
    ]


def headline(report: Report) -> str:
    """The main figure with its interval and n, what chance reaches, and whether the model is shown to do better."""
    results, classes = report["results"], report["cohort"]["classes"]
    accuracy, baseline = results["all"]["overall"]["accuracy"], results["baseline"]
    return (
        f"Shown scans of patients it had not been trained on, the model named the right one of {len(classes)} classes for "
        f"{interval_words(accuracy)}. Always answering {baseline['label']} (no class is more frequent) would be right for "
        f"{interval_words(baseline['accuracy'])}. {verdict(accuracy, baseline)}"
    )


def verdict(accuracy: Estimate, baseline: Mapping[str, Any]) -> str:
    """Whether the accuracy is shown to differ from always answering the most frequent class."""
    ours, low, high = accuracy["value"], accuracy["low"], accuracy["high"]
    share, p = baseline["accuracy"]["value"], baseline.get("binomial_p")
    tested = "" if p is None else f" (exact binomial test, {p_words(p)})"
    if ours is None or low is None or high is None or share is None:
        return "Whether the model does better than that cannot be told from these patients."
    if low > share and (p is None or p < SIGNIFICANT):
        return f"So the model does better than that{tested}; it is wrong in the other {percent(1 - ours)} of patients."
    if high < share:
        return "So the model does worse than that: it is of no use as it is."
    return f"So it is not shown that the model does better than that{tested}."


def cohort(report: Report) -> Content:
    """How many patients went in, who was left out and why, the label policy, class by fold counts."""
    facts = report["cohort"]
    flow = [
        element(
            "li",
            element("strong", step["patients"]),
            element("span", step["step"]),
            element("small", step["why"]) if step.get("why") else None,
        )
        for step in facts.get("flow") or ()
    ]
    return [
        element("ol", flow, class_="flow") if flow else absent("the flow of patients"),
        element("h3", "What the labels mean"),
        _policy(facts),
        _class_by_fold(facts),
        warning_box("Remarks on the data", facts.get("warnings") or ()),
    ]


def design(report: Report) -> Content:
    """How the figures came about, in words, and all settings."""
    facts = report["design"]
    share = facts.get("inner_share")
    shown = {
        "Test folds": facts.get("folds"),
        "Repeats with new folds": facts.get("repeats"),
        "Models fitted": facts.get("fits"),
        "Way of training": MODES.get(str(facts.get("mode")), facts.get("mode")),
        "Inner validation": f"{share:.0%} of each fit's training patients" if isinstance(share, float) else share,
        "Seed": facts.get("seed"),
    }
    settings = facts.get("settings") or {}
    return [
        element("p", facts["sentence"]) if facts.get("sentence") else None,
        element(
            "p",
            "Each patient is a test patient once in every repeat, scored by a model that has never seen a scan of that patient. "
            "Every choice (when to stop, temperature, when to abstain) was made on inner validation patients of the same fit, "
            "never on a test fold. A frame is an axial slice, so a sequence of frames is space from feet to head, not time.",
        ),
        pairs({name: value for name, value in shown.items() if value is not None}),
        element("h3", "Settings"),
        pair_columns(settings) if settings else absent("the settings"),
    ]


def controls(report: Report) -> Content:
    """Runs that must fail, or that show how far simpler things get, beside the model."""
    found = report.get("controls") or ()
    if not found:
        return absent("controls: without them nothing is known of what the figures rest on")
    results = report["results"]
    overall, baseline = results["all"]["overall"], results["baseline"]["accuracy"]["value"]
    guessing = 1 / len(report["cohort"]["classes"])
    tables = []
    for key, chance in (("accuracy", baseline), ("balanced_accuracy", guessing)):
        rows = [row(element("strong", "The model"), estimate_cells(overall[key]), bar_cell(overall[key], chance))]
        rows += [
            row(control["title"], estimate_cells(control[key]), bar_cell(control[key], chance)) for control in found
        ]
        caption = f"{words_of(key)} of the model and its controls"
        tables.append(table(caption, ["what was run", "value", "95% interval", "n", SCALE], rows, numeric=(1, 3)))
    differences = [
        row(control["title"], _signed_cells(paired))
        for control in found
        if (paired := (control.get("details") or {}).get("difference"))
    ]
    readings = [
        element("div", element("dt", control["title"], ": ", control["question"]), element("dd", control["reading"]))
        for control in found
    ]
    return [
        tables,
        element(
            "p",
            "Dashed: always the most frequent class for accuracy, one in the number of classes for balanced accuracy.",
            class_="small quiet",
        ),
        table(
            "Accuracy of the model minus that of the control, on the same patients and folds",
            ["control", "difference", "95% interval", "n"],
            differences,
            numeric=(1, 3),
        )
        if differences
        else None,
        element("h3", "What they mean"),
        element("dl", readings, class_="prose readings"),
    ]


def comparison(report: Report) -> Content:
    """The paired comparison with another cross-validation on the same folds."""
    against = report.get("against")
    if not against:
        return absent("comparison with another model (monai-chd crossval --against)")
    better = against.get("better") or {}
    rows = [
        row(words_of(key), _signed_cells(one), "less is better" if better.get(key, 1) < 0 else "more is better")
        for key, one in against["differences"].items()
    ]
    tests = [
        row(
            words_of(str(one["of"])),
            element("td", one["only_first"], class_="n"),
            element("td", one["only_second"], class_="n"),
            p_words(one["p"]),
        )
        for one in against.get("mcnemar") or ()
    ]
    corrected = against.get("corrected_t")
    return [
        element(
            "p",
            "This model (first) beside the one of ",
            element("code", against.get("other", "another run")),
            " (second), on the same patients and folds. A difference whose interval includes 0 may be chance.",
        ),
        bullets(against.get("sentences") or ()),
        table("First minus second", ["figure", "difference", "95% interval", "n", "direction"], rows, numeric=(1, 3)),
        table(
            "Patients that only one of the two got right",
            ["predictions", "only first", "only second", "exact McNemar test"],
            tests,
            numeric=(1, 2),
        )
        if tests
        else None,
        element("p", _corrected(corrected, against["patients"])) if corrected else None,
        method_notes(
            against.get("methods") or {},
            [*(one["method"] for one in against["differences"].values()), "mcnemar", "corrected_t"],
        ),
    ]


def mistakes(report: Report, pictures: Mapping[str, str]) -> Content:
    """The worst mistakes, with frames and how probability changes when frames are hidden.

    Args:
        report: as in report.json.
        pictures: data URI of each sheet, by its name in the report.
    """
    cases = report.get("worst_cases") or ()
    if not cases:
        return absent("the worst mistakes")
    return [
        element("p", "Patients for whom the model was most sure of a wrong class, in a model that had not seen them."),
        warning_box(
            "How to read this",
            [NOT_EVIDENCE, "Scans of patients are pictured: share this page only as the data's terms allow."],
        ),
        [_case(case, pictures) for case in cases],
    ]


def training(report: Report) -> Content:
    """Learning curves of all fits."""
    drawn = learning_charts(report.get("training") or ())
    if not drawn:
        return absent("learning curves")
    note = f"These are figures of the {SELECTION}. They say how the training went, not how good the model is."
    return [element("p", note), element("div", drawn, class_="charts")]


def _cards(results: Mapping[str, Any], classes: int) -> list[Markup]:
    overall, baseline = results["all"]["overall"], results["baseline"]
    cards = [
        _card("Accuracy", overall["accuracy"], baseline["accuracy"]["value"], f"dashed: always {baseline['label']}"),
        _card(
            "Balanced accuracy (mean recall of the classes)",
            overall["balanced_accuracy"],
            1 / classes,
            "dashed: guessing",
        ),
    ]
    if results.get("answered"):
        answered = results["answered"]["overall"]["accuracy"]
        note = f"the model answers {interval_words(results['coverage'])}"
        cards.append(_card("Accuracy where the model answers", answered, None, note))
    return cards


def _card(title: str, estimate: Estimate, chance: float | None, note: str) -> Markup:
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    limits = (
        "no interval can be given" if low is None or high is None else f"95% interval {percent(low)} to {percent(high)}"
    )
    return element(
        "div",
        element("h3", title),
        element("div", "undefined" if value is None else percent(value), class_="value"),
        element("p", f"{limits}; n = {estimate['n']} patients"),
        range_bar(estimate, chance),
        element("p", note, class_="small quiet"),
        class_="card",
    )


def _control_sentences(report: Report) -> list[Content]:
    return [
        [element("strong", f"{control['title']}. "), control["reading"]] for control in report.get("controls") or ()
    ]


def _policy(facts: Mapping[str, Any]) -> Content:
    rule, normal = facts.get("rule") or {}, facts.get("normal") or (facts.get("rule") or {}).get("normal")
    if not rule:
        return absent("the rule from diagnoses to classes; the table gave the classes themselves")
    known = ("name", "description", "normal")
    more = {key: value for key, value in rule.items() if key not in (*known, "steps", "schema")}
    return [
        element("p", "Rule ", element("strong", rule.get("name", "")), ": ", rule.get("description", "")),
        element(
            "p",
            "Patients without a listed diagnosis (",
            element("strong", normal),
            "): ",
            NORMAL_MEANS.get(str(normal), ""),
        )
        if normal
        else None,
        pairs(more) if more else None,
    ]


def _class_by_fold(facts: Mapping[str, Any]) -> Content:
    counts = facts.get("class_by_fold") or {}
    if not counts:
        return absent("counts by class and fold")
    repeats = len(next(iter(counts.values())))
    rows = [
        row(
            repeat,
            [element("td", ", ".join(map(str, by_repeat[repeat])), class_="nowrap") for by_repeat in counts.values()],
        )
        for repeat in range(repeats)
    ]
    rows.append(row("all folds", [element("td", sum(by_repeat[0])) for by_repeat in counts.values()]))
    return table("Patients tested in fold 0, fold 1, \u2026", ["repeat", *counts], rows)


def _signed_cells(estimate: Estimate) -> list[Markup]:
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    shown = "undefined" if value is None else f"{value:+.3f}"
    limits = "no interval" if low is None or high is None else f"{low:+.3f} to {high:+.3f}"
    return [
        element("td", shown, class_="n"),
        element("td", limits, class_="nowrap"),
        element("td", estimate["n"], class_="n"),
    ]


def _corrected(test: Mapping[str, Any], patients: int) -> str:
    low, high = test["low"], test["high"]
    limits = "no interval" if low is None or high is None else f"95% interval {100 * low:+.1f} to {100 * high:+.1f}"
    return (
        f"Corrected t-test over {test['fits']} fits of n = {patients} patients: accuracy differs by "
        f"{100 * test['difference']:+.1f} percentage points ({limits}; {p_words(test['p'])})."
    )


def _case(case: Mapping[str, Any], pictures: Mapping[str, str]) -> Markup:
    patient, label, prediction = (str(case[key]) for key in ("patient", "label", "prediction"))
    shown = ", ".join(f"{name} {percent(p)}" for name, p in case["probabilities"].items())
    more = {key: case[key] for key in ("flags", "repeat", "fold", "image") if case.get(key) not in (None, [], "")}
    uri, windows = pictures.get(case.get("sheet") or ""), case.get("occlusion") or ()
    sheet = []
    if uri:
        alt = f"{len(windows) or 'Some'} axial slices of patient {patient}, feet to head, as the network sees them"
        sheet.append(element("img", src=uri, alt=alt))
    if windows:
        sheet.append(occlusion_bars(windows, margin=TITLE_WIDTH, tile=TILE, class_name=prediction))
    caption = (
        f"Change in the probability of {prediction} when these frames are hidden; below zero, the frames spoke for {prediction}. "
        "Not evidence."
    )
    if windows and max(abs(window["change"]) for window in windows) < SMALL:
        caption = f"Hiding any one stretch of frames changes the probability of {prediction} by less than {SMALL}. Not evidence."
    return element(
        "article",
        element("h3", f"Patient {patient}: {label}, called {prediction}"),
        element("p", f"Probabilities given: {shown}.", class_="small"),
        element("p", "; ".join(f"{name} {_listed(value)}" for name, value in more.items()), class_="small quiet")
        if more
        else None,
        element(
            "figure",
            element(
                "div",
                element("div", sheet, class_="sheet"),
                class_="scroll",
                role="region",
                tabindex=0,
                aria_label=f"Frames of patient {patient}",
            ),
            element("figcaption", caption) if windows else None,
        )
        if sheet
        else absent("frames of this patient"),
        class_="case",
    )


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
