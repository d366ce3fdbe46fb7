"""The charts of the evaluation report, drawn out of its dict: ROC, precision-recall, reliability, risk-coverage, learning curves.

Takes every number from the report; the plane and its marks are `charts`' part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from monai_chd.metrics.predictions import format_estimate
from monai_chd.report.charts import Panel, numbers
from monai_chd.report.markup import Content, Markup, element

SELECTION = "inner validation patients, which chose the model: not a test result"
MOST_LINES = 30
"""Fits drawn in one panel of learning curves; more would only blacken it."""


def figure(drawing: Markup, caption: Content) -> Markup:
    """A chart with its caption."""
    return element("figure", drawing, element("figcaption", caption))


def roc_charts(results: Mapping[str, Any], classes: Sequence[str]) -> list[Markup]:
    """One ROC curve a class against the rest; nothing for a class without one."""
    figures = []
    for k, name in enumerate(classes):
        curve = results["curves"]["roc"].get(name)
        if not curve:
            continue
        area = _per_class(results, name, "auc")
        panel = Panel(
            f"ROC curve, {name} against the rest",
            f"Area under the curve {area}. The diagonal is chance.",
            labels=("false positive rate", "recall (sensitivity)"),
        )
        panel.line([(0, 0), (1, 1)], "reference")
        panel.line(list(zip(numbers(curve["fpr"]), numbers(curve["tpr"]), strict=True)), f"c{k % 3}")
        figures.append(figure(panel.svg(), [element("strong", name), f": AUC {area}"]))
    return figures


def pr_charts(results: Mapping[str, Any], classes: Sequence[str]) -> list[Markup]:
    """One precision-recall curve a class against the rest, with the class's share as what chance reaches."""
    figures = []
    for k, name in enumerate(classes):
        curve = results["curves"]["pr"].get(name)
        if not curve:
            continue
        share = float(curve["prevalence"])
        support = results["all"]["per_class"][name]["support"]
        panel = Panel(
            f"Precision-recall curve, {name} against the rest",
            f"Chance is a precision of {share:.2f}, the share of the class ({support} patients).",
            labels=("recall (sensitivity)", "precision"),
        )
        panel.line([(0, share), (1, share)], "reference")
        panel.line(list(zip(numbers(curve["recall"]), numbers(curve["precision"]), strict=True)), f"c{k % 3}")
        caption = f": dashed, the share of the class, {share:.2f} ({support} patients)"
        figures.append(figure(panel.svg(), [element("strong", name), caption]))
    return figures


def reliability_charts(results: Mapping[str, Any]) -> list[Markup]:
    """Confidence against accuracy in bins, before and after temperature scaling."""
    figures = []
    for key, words in (("before", "before temperature scaling"), ("after", "after temperature scaling, as used")):
        diagram = results["curves"]["reliability"].get(key)
        if not diagram:
            continue
        bins = [one for one in diagram["bins"] if one["n"]]
        described = "; ".join(
            f"confidence {one['confidence']:.2f}: {one['accuracy']:.0%} right (n={one['n']:g})" for one in bins
        )
        panel = Panel(
            f"Reliability {words}", described, labels=("probability given to the answer", "share of answers right")
        )
        panel.line([(0, 0), (1, 1)], "reference")
        for one in bins:
            low, high = numbers([one.get("low"), one.get("high")])
            if math.isfinite(low) and math.isfinite(high):
                panel.whisker(one["confidence"], low, high, "c0")
        panel.line([(one["confidence"], one["accuracy"]) for one in bins], "c0 thin")
        for one in bins:
            panel.dot(one["confidence"], one["accuracy"], "c0")
        caption = f": expected calibration error {format_estimate(diagram['ece'])}"
        figures.append(figure(panel.svg(), [element("strong", words.capitalize()), caption]))
    return figures


def risk_coverage_chart(results: Mapping[str, Any]) -> Markup:
    """Errors among the answered cases against the share answered, with the published point of another task."""
    curve = results["curves"]["risk_coverage"]
    points = list(zip(numbers(curve["coverage"]), numbers(curve["risk"]), strict=True))
    published = curve.get("published")
    highest = max(
        [risk for _, risk in points if math.isfinite(risk)] + ([published["risk"]] if published else []) + [0.1]
    )
    words = f"Area under the curve {format_estimate(curve['aurc'])}."
    if published:
        words += f" A diamond marks the published point of another task: {_published(published)}."
    panel = Panel(
        "Risk-coverage curve",
        words,
        y=(0.0, min(1.0, math.ceil(highest * 10 + 0.5) / 10)),
        labels=("coverage: share of patients answered", "risk: share of answers wrong"),
    )
    panel.line(points, "c0")
    if published:
        panel.diamond(published["coverage"], published["risk"], "c1")
        panel.note(published["coverage"], published["risk"], "ImageCHD paper,", anchor="end", shift=(-10, -2))
        panel.note(published["coverage"], published["risk"], "another task", anchor="end", shift=(-10, 12))
    return figure(panel.svg(), ["Area under the curve (lower is better): ", format_estimate(curve["aurc"])])


def learning_charts(training: Sequence[Mapping[str, Any]]) -> list[Markup]:
    """Losses, and macro-F1 on the inner validation patients, by epoch, a line a fit."""
    fits = [fit for fit in training if fit.get("history")][:MOST_LINES]
    if not fits:
        return []
    epochs = [entry["epoch"] for fit in fits for entry in fit["history"]]
    span = (float(min(epochs)), float(max(epochs)))
    return [_losses(fits, span), _scores(fits, span)]


def _losses(fits: Sequence[Mapping[str, Any]], span: tuple[float, float]) -> Markup:
    values = [v for fit in fits for key in ("train_loss", "val_loss") for v in _series(fit, key)[1] if math.isfinite(v)]
    panel = Panel(
        "Loss by epoch",
        f"{len(fits)} fits, a solid line each for validation and a dashed one for training.",
        x=span,
        y=(0.0, 1.05 * max(values, default=1.0)),
        labels=("epoch", "loss"),
    )
    for key, class_ in (("train_loss", "c1 faint dashed"), ("val_loss", "c0 faint")):
        for fit in fits:
            panel.line(list(zip(*_series(fit, key), strict=True)), class_)
    return figure(panel.svg(), [key_of("c0", "validation"), key_of("c1 dashed", "training"), f"Loss; {SELECTION}"])


def _scores(fits: Sequence[Mapping[str, Any]], span: tuple[float, float]) -> Markup:
    best = [float(fit["best_epoch"]) for fit in fits if fit.get("best_epoch") is not None]
    words = f" The epochs kept lie between {min(best):g} and {max(best):g}." if best else ""
    panel = Panel(
        "Macro-F1 of the validation patients by epoch",
        f"{len(fits)} fits, a line each; a dot marks the epoch that was kept.{words}",
        x=span,
        labels=("epoch", "macro-F1 (validation)"),
    )
    for fit in fits:
        epochs, values = _series(fit, "val_macro_f1")
        panel.line(list(zip(epochs, values, strict=True)), "c2 faint")
        for epoch, value in zip(epochs, values, strict=True):
            if epoch == fit.get("best_epoch") and math.isfinite(value):
                panel.dot(epoch, value, "c2", radius=3)
    return figure(panel.svg(), [key_of("c2", "validation"), f"Macro-F1; {SELECTION}; a dot is the epoch kept"])


def key_of(class_: str, text: str) -> Markup:
    """An entry of a legend: a stroke as in the chart, and its name."""
    stroke = element(
        "svg", element("line", x1=0, x2=26, y1=6, y2=6, class_=f"line {class_}"),
        viewBox="0 0 26 12", width=26, height=12, aria_hidden="true", class_="key",
    )  # fmt: skip
    return element("span", stroke, f" {text} ", class_="legend")


def _series(fit: Mapping[str, Any], key: str) -> tuple[list[float], list[float]]:
    """Epochs and values of one entry of a history, in which single epochs may lack it."""
    known = [entry for entry in fit["history"] if entry.get(key) is not None]
    return numbers(entry["epoch"] for entry in known), numbers(entry[key] for entry in known)


def _per_class(results: Mapping[str, Any], name: str, figure_name: str) -> str:
    return format_estimate(results["all"]["per_class"][name][figure_name])


def _published(point: Mapping[str, Any]) -> str:
    return f"{1 - point['risk']:.1%} right at {point['coverage']:.1%} coverage"
