"""The sections of the evaluation report on the model's figures: tables, confusion matrix, curves, calibration, abstaining.

Every figure stands with its interval, n and method; pieces are `report_parts`', charts `report_figures`' part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai_chd.metrics.estimates import Estimate
from monai_chd.report.markup import Content, Markup, element
from monai_chd.report.model_card import words_of
from monai_chd.report.parts import (
    SCALE,
    Report,
    absent,
    bar_cell,
    estimate_cells,
    interval_words,
    method_notes,
    row,
    table,
)
from monai_chd.report.report_charts import (
    pr_charts,
    reliability_charts,
    risk_coverage_chart,
    roc_charts,
)

DIAGNOSES = {
    "ASD": "atrial septal defect",
    "VSD": "ventricular septal defect",
    "AVSD": "atrioventricular septal defect",
    "ToF": "tetralogy of Fallot",
    "TGA": "transposition of the great arteries",
    "DORV": "double outlet right ventricle",
    "CAT": "common arterial trunk",
    "CA": "coarctation of the aorta",
    "AAH": "aortic arch hypoplasia",
    "DAA": "double aortic arch",
    "IAA": "interrupted aortic arch",
    "PA": "pulmonary atresia",
    "APVC": "anomalous pulmonary venous connection",
    "DSVC": "double superior vena cava",
    "PDA": "patent ductus arteriosus",
    "PAS": "pulmonary artery sling",
}
"""ImageCHD's flags in words."""

LESS_IS_BETTER = ("log_loss", "brier", "ece")


def figures(report: Report) -> Content:
    """All figures with interval and n, of all patients and of the answered ones, by class, and their spread."""
    results, classes = report["results"], report["cohort"]["classes"]
    scored, answered = results["all"], results.get("answered")
    used = [one["method"] for part in (scored, answered) if part for one in _estimates(part)]
    parts: list[Content] = [
        element("p", "n counts patients, never patients times repeats. The dashed mark is what chance reaches."),
        _overall_table("All patients", scored, results, len(classes)),
        _class_table("By class, all patients", scored),
    ]
    if answered:
        parts += [
            element("h3", "Only the patients that the model answers"),
            element("p", "It answers ", interval_words(results["coverage"]), " and abstains from the others."),
            _overall_table("Answered patients", answered, None, len(classes)),
            _class_table("By class, answered patients", answered),
        ]
    parts += [_spread(results), _ensemble(results), method_notes(results["methods"], used)]
    return parts


def confusion(report: Report) -> Content:
    """The confusion matrix: counts and percent of the row."""
    results, classes = report["results"], report["cohort"]["classes"]
    repeats = results["repeats"]
    counts = f"Patients, mean of {repeats} repeats" if repeats > 1 else "Patients"
    parts: list[Content] = [_matrix(f"{counts}, and percent of the true class: all patients", results["all"], classes)]
    if results.get("answered"):
        parts.append(
            _matrix(f"{counts}, and percent of the true class: answered patients", results["answered"], classes)
        )
    return parts


def curves(report: Report) -> Content:
    """ROC and precision-recall curves of each class against the rest."""
    results, classes = report["results"], report["cohort"]["classes"]
    return [
        element("p", "Each class against the other two. Curves are means over repeats; dashed is chance."),
        element("h3", "ROC"),
        element("div", roc_charts(results, classes), class_="charts"),
        element("h3", "Precision and recall"),
        element("div", pr_charts(results, classes), class_="charts"),
    ]


def calibration(report: Report) -> Content:
    """Whether a probability of 80% means right in 80%, before and after temperature scaling."""
    results = report["results"]
    reliability = results["curves"]["reliability"]
    rows = [
        row(words_of(key) + ", " + when, estimate_cells(reliability[when][key]))
        for key in LESS_IS_BETTER
        for when in ("before", "after")
        if reliability.get(when) and key in reliability[when]
    ]
    return [
        element(
            "p",
            "If the model is well calibrated, answers given with 80% probability are right in 80% of patients, and points lie "
            "on the dashed line. Bars are 95% intervals of each point, bins hold equally many patients. The temperature was "
            "fitted on inner validation patients.",
        ),
        element("div", reliability_charts(results), class_="charts"),
        table("Smaller is better", ["figure", "value", "95% interval", "n"], rows, numeric=(1, 3)),
        method_notes(results["methods"], ["ece", "brier"]),
    ]


def abstention(report: Report) -> Content:
    """Errors among the answered patients against how many are answered."""
    results = report["results"]
    curve = results["curves"]["risk_coverage"]
    rows = [
        row(words, estimate_cells(curve[key]))
        for key, words in (("aurc", "Area under the curve (AURC)"), ("augrc", "Generalised (AUGRC)"))
        if key in curve
    ]
    published = curve.get("published") or {}
    return [
        element(
            "p",
            "When the model answers only the patients it is most sure of (left), fewer answers should be wrong. As used, it "
            "answers ",
            interval_words(results["coverage"]),
            ".",
        ),
        element("div", risk_coverage_chart(results), class_="charts"),
        element("p", published["sentence"]) if published.get("sentence") else None,
        table("Areas, smaller is better", ["figure", "value", "95% interval", "n"], rows, numeric=(1, 3)),
        method_notes(results["methods"], ["aurc", "augrc"]),
    ]


def lesions(report: Report) -> Content:
    """Share of patients with a diagnosis whose class was right."""
    found = report["results"].get("per_lesion") or ()
    if not found:
        return absent("results by lesion: the datalist holds no diagnosis flags")
    rows = [
        row(
            _diagnosis(one["flag"]),
            estimate_cells(one["recall"]),
            bar_cell(one["recall"]),
            words_of(one["recall"]["method"]),
        )
        for one in found
    ]
    header = ["diagnosis", "class right", "95% interval", "n", SCALE, "method"]
    return [
        element(
            "p",
            "Of the patients with a diagnosis, how many got the right class. A patient with several diagnoses stands in several "
            "rows. The model does not name diagnoses. A handful of patients is an anecdote, not a rate: mind n.",
        ),
        table("Patients with the right class, by diagnosis", header, rows, numeric=(1, 3)),
    ]


def _estimates(part: Mapping[str, Any]) -> list[Estimate]:
    by_class = [
        one[key] for one in part["per_class"].values() for key in ("precision", "recall", "f1", "auc") if key in one
    ]
    return [*part["overall"].values(), *by_class]


def _overall_table(caption: str, part: Mapping[str, Any], results: Mapping[str, Any] | None, classes: int) -> Markup:
    chance: dict[str, float | None] = dict.fromkeys(("balanced_accuracy", "macro_recall"), 1 / classes)
    chance["auc_macro"] = 0.5
    if results:
        chance["accuracy"] = chance["weighted_recall"] = results["baseline"]["accuracy"]["value"]
    rows = [
        row(
            words_of(key) + (" (less is better)" if key in LESS_IS_BETTER else ""),
            estimate_cells(one),
            element("td", class_="picture") if key in LESS_IS_BETTER else bar_cell(one, chance.get(key)),
            words_of(one["method"]),
        )
        for key, one in part["overall"].items()
    ]
    if results:
        baseline = results["baseline"]
        own = baseline["accuracy"]
        rows.append(
            row(f"Baseline: always {baseline['label']}", estimate_cells(own), bar_cell(own), words_of(own["method"]))
        )
    return table(caption, ["figure", "value", "95% interval", "n", SCALE, "method"], rows, numeric=(1, 3))


def _class_table(caption: str, part: Mapping[str, Any]) -> Markup:
    groups = []
    for name, one in part["per_class"].items():
        rows = [
            row(
                f"{words_of(key)}{' (sensitivity)' if key == 'recall' else ''}",
                estimate_cells(one[key]),
                bar_cell(one[key], 0.5 if key == "auc" else None),
                words_of(one[key]["method"]),
            )
            for key in ("recall", "precision", "f1", "auc")
            if key in one
        ]
        head = element("th", f"{name} ({one['support']} patients)", scope="rowgroup", colspan=6)
        groups.append(element("tbody", element("tr", head), rows, class_="group"))
    return table(caption, ["class", "value", "95% interval", "n", SCALE, "method"], groups, numeric=(1, 3))


def _spread(results: Mapping[str, Any]) -> Content:
    spread = {key: [v for v in values if v is not None] for key, values in (results.get("repeat_spread") or {}).items()}
    if results["repeats"] < 2 or not any(spread.values()):
        return None
    rows = [
        row(words_of(key), element("td", f"{min(values):.3f} to {max(values):.3f}", class_="nowrap"))
        for key, values in spread.items()
        if values
    ]
    caption = f"Lowest to highest of the {results['repeats']} repeats"
    return [
        element("h3", "How much the draw of the folds moves the figures"),
        element(
            "p", "Every repeat has the same patients and other folds. This is no interval: it tells nothing of others."
        ),
        table(caption, ["figure", "range"], rows),
    ]


def _ensemble(results: Mapping[str, Any]) -> Content:
    ensemble = results.get("ensemble")
    if not ensemble:
        return None
    rows = [
        row(words_of(key), estimate_cells(one), words_of(one["method"])) for key, one in ensemble["overall"].items()
    ]
    return [
        element("h3", "Mean of the repeats' probabilities (secondary)"),
        element("p", ensemble.get("sentence", "")),
        table("Ensemble of the repeats", ["figure", "value", "95% interval", "n", "method"], rows, numeric=(1, 3)),
    ]


def _matrix(caption: str, part: Mapping[str, Any], classes: Sequence[str]) -> Markup:
    counts, percents = part["confusion_matrix"]["counts"], part["confusion_matrix"]["row_percent"]
    rows = []
    for i, name in enumerate(classes):
        cells = []
        for j in range(len(classes)):
            share = percents[i][j]
            cells.append(
                element(
                    "td",
                    element("strong", f"{counts[i][j]:.1f}".removesuffix(".0")),
                    "no patient" if share is None else f"{share:.0f}%",
                    style=f"--share:{0.0 if share is None else 0.45 * share / 100:.3f}",
                    class_="diagonal" if i == j else None,
                )
            )
        total = f"{sum(counts[i]):.1f}".removesuffix(".0")
        rows.append(row(f"{name} (n = {total})", cells))
    return table(caption, ["true class", *(f"called {name}" for name in classes)], rows, class_="confusion")


def _diagnosis(flag: str) -> Content:
    words = DIAGNOSES.get(flag)
    return [flag, element("div", words, class_="small quiet")] if words else flag
