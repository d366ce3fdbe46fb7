"""What the charts of the report draw, out of its dict: planes, marks and captions, as plain values for `charts.html.j2`.

Takes every number from the report and computes no figure; writes no markup, and colours are the style sheet's part. Sizes are
in CSS pixels on a phone: a chart is about as wide as its screen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from monai_chd.metrics.curves import LearningCurves, learning_curves
from monai_chd.metrics.wording import format_estimate

WIDTH, HEIGHT = 340.0, 270.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 14.0, 42.0

SELECTION = "inner validation patients, which chose the model: not a test result"
MOST_LINES = 30
"""Fits drawn in one panel of learning curves; more would only blacken it."""

Points = Sequence[tuple[float, float]]


class Mark(NamedTuple):
    """One SVG element; `text` is what it says."""

    element: str
    attributes: dict[str, str]
    text: str = ""


class Drawing(NamedTuple):
    """An SVG image with its accessible name and description; `kind` is its class in the style sheet."""

    title: str
    description: str
    width: float
    height: float
    marks: list[Mark]
    kind: str = "chart"


class Chart(NamedTuple):
    """A drawing and its caption: strokes with their names (class, name), a name in bold, and text."""

    drawing: Drawing
    caption: str
    name: str = ""
    legend: tuple[tuple[str, str], ...] = ()


class Panel:
    """The plane of one chart: maps data to pixels and draws its frame.

    Args:
        title: what the chart shows, as its accessible name.
        description: the same in words, for who cannot see it.
        x: lowest and highest value, left to right.
        y: lowest and highest value, bottom to top.
        labels: of the x and the y axis.
    """

    def __init__(
        self,
        title: str,
        description: str,
        *,
        x: tuple[float, float] = (0.0, 1.0),
        y: tuple[float, float] = (0.0, 1.0),
        labels: tuple[str, str] = ("", ""),
    ) -> None:
        self.title, self.description = title, description
        self.x_range, self.y_range = _widened(*x), _widened(*y)
        self.labels = labels
        self.marks: list[Mark] = []

    def x(self, value: float) -> float:
        """Pixels from the left; values outside the range stay at its edge."""
        return LEFT + _share(value, self.x_range) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Pixels from the top; values outside the range stay at its edge."""
        return HEIGHT - BOTTOM - _share(value, self.y_range) * (HEIGHT - TOP - BOTTOM)

    def line(self, points: Points, class_: str) -> None:
        """A line through points; those that are not finite part it."""
        for stretch in _finite(points):
            if len(stretch) == 1:
                self.dot(*stretch[0], class_, radius=2.2)
                continue
            path = " ".join(f"{_short(self.x(a))},{_short(self.y(b))}" for a, b in stretch)
            self.marks.append(_mark("polyline", points=path, class_=f"line {class_}"))

    def dot(self, x: float, y: float, class_: str, *, radius: float = 3.5) -> None:
        """A point."""
        self.marks.append(_mark("circle", cx=self.x(x), cy=self.y(y), r=radius, class_=f"dot {class_}"))

    def diamond(self, x: float, y: float, class_: str) -> None:
        """A point of another kind."""
        a, b, r = self.x(x), self.y(y), 6.5
        corners = [(a, b - r), (a + r, b), (a, b + r), (a - r, b)]
        path = f"M{'L'.join(f'{_short(x)} {_short(y)}' for x, y in corners)}Z"
        self.marks.append(_mark("path", d=path, class_=f"dot {class_}"))

    def whisker(self, x: float, low: float, high: float, class_: str) -> None:
        """An interval upright at x."""
        a = self.x(x)
        self.marks.append(_mark("line", x1=a, x2=a, y1=self.y(low), y2=self.y(high), class_=f"whisker {class_}"))

    def note(self, x: float, y: float, text: str, *, shift: tuple[float, float]) -> None:
        """Text that ends at a point of the data, shifted by pixels to the right and down."""
        a, b = self.x(x) + shift[0], self.y(y) + shift[1]
        self.marks.append(_mark("text", text, x=a, y=b, class_="note", text_anchor="end"))

    def drawing(self) -> Drawing:
        """The marks in their frame."""
        return Drawing(self.title, self.description, WIDTH, HEIGHT, [*self._frame(), *self.marks])

    def _frame(self) -> Iterator[Mark]:
        left, right, bottom = LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM
        for value in ticks(*self.y_range):
            at = self.y(value)
            yield _mark("line", x1=left, x2=right, y1=at, y2=at, class_="grid")
            yield _mark("text", f"{value:g}", x=left - 6, y=at + 4, class_="tick", text_anchor="end")
        for value in ticks(*self.x_range):
            yield _mark("text", f"{value:g}", x=self.x(value), y=bottom + 16, class_="tick", text_anchor="middle")
        yield _mark("line", x1=left, x2=right, y1=bottom, y2=bottom, class_="axis")
        yield _mark("line", x1=left, x2=left, y1=TOP, y2=bottom, class_="axis")
        words = {"class_": "label", "text_anchor": "middle"}
        upright = f"translate(11 {_short((TOP + bottom) / 2)}) rotate(-90)"
        yield _mark("text", self.labels[0], x=(left + right) / 2, y=HEIGHT - 8, **words)
        yield _mark("text", self.labels[1], x=0, y=0, transform=upright, **words)


def roc_charts(results: Mapping[str, Any], classes: Sequence[str]) -> list[Chart]:
    """One ROC curve a class against the rest; nothing for a class without one."""
    charts = []
    for k, name in enumerate(classes):
        curve = results["curves"]["roc"].get(name)
        if not curve:
            continue
        area = format_estimate(results["all"]["per_class"][name]["auc"])
        panel = Panel(
            f"ROC curve, {name} against the rest",
            f"Area under the curve {area}. The diagonal is chance.",
            labels=("false positive rate", "recall (sensitivity)"),
        )
        panel.line([(0, 0), (1, 1)], "reference")
        panel.line(list(zip(numbers(curve["fpr"]), numbers(curve["tpr"]), strict=True)), f"c{k % 3}")
        charts.append(Chart(panel.drawing(), f": AUC {area}", name))
    return charts


def pr_charts(results: Mapping[str, Any], classes: Sequence[str]) -> list[Chart]:
    """One precision-recall curve a class against the rest, with the class's share as what chance reaches."""
    charts = []
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
        charts.append(Chart(panel.drawing(), caption, name))
    return charts


def reliability_charts(results: Mapping[str, Any]) -> list[Chart]:
    """Confidence against accuracy in bins, before and after temperature scaling."""
    charts = []
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
        charts.append(Chart(panel.drawing(), caption, words.capitalize()))
    return charts


def risk_coverage_chart(results: Mapping[str, Any]) -> Chart:
    """Errors among the answered cases against the share answered, with the published point of another task."""
    curve = results["curves"]["risk_coverage"]
    points = list(zip(numbers(curve["coverage"]), numbers(curve["risk"]), strict=True))
    published, area = curve.get("published"), format_estimate(curve["aurc"])
    highest = max([0.1, published["risk"] if published else 0, *(risk for _, risk in points if math.isfinite(risk))])
    words = f"Area under the curve {area}."
    if published:
        point = f"{1 - published['risk']:.1%} right at {published['coverage']:.1%} coverage"
        words += f" A diamond marks the published point of another task: {point}."
    panel = Panel(
        "Risk-coverage curve",
        words,
        y=(0.0, min(1.0, math.ceil(highest * 10 + 0.5) / 10)),
        labels=("coverage: share of patients answered", "risk: share of answers wrong"),
    )
    panel.line(points, "c0")
    if published:
        panel.diamond(published["coverage"], published["risk"], "c1")
        panel.note(published["coverage"], published["risk"], "ImageCHD paper,", shift=(-10, -2))
        panel.note(published["coverage"], published["risk"], "another task", shift=(-10, 12))
    return Chart(panel.drawing(), f"Area under the curve (lower is better): {area}")


def distance_chart(curve: Mapping[str, Any]) -> Chart:
    """Errors among the answered cases when those are answered first whose structures are most like the training's."""
    points = list(zip(numbers(curve["coverage"]), numbers(curve["risk"]), strict=True))
    highest = max([0.1, *(risk for _, risk in points if math.isfinite(risk))])
    area = format_estimate(curve["aurc"])
    panel = Panel(
        "Risk-coverage curve by structures",
        f"Area under the curve {area}; a random order has {format_estimate(curve['all'])}.",
        y=(0.0, min(1.0, math.ceil(highest * 10 + 0.5) / 10)),
        labels=("coverage: share of patients answered, most usual structures first", "risk: share of answers wrong"),
    )
    panel.line(points, "c0")
    return Chart(panel.drawing(), f"Area under the curve (lower is better): {area}")


def learning_charts(training: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Losses, and macro-F1 on the inner validation patients, by epoch, a line a fit."""
    histories = [fit["history"] for fit in training if fit.get("history")][:MOST_LINES]
    if not histories:
        return []
    epochs = [float(entry["epoch"]) for history in histories for entry in history]
    span = (min(epochs), max(epochs))
    fits = [learning_curves(history) for history in histories]
    return [_losses(fits, span), _scores(fits, span)]


def _losses(fits: Sequence[LearningCurves], span: tuple[float, float]) -> Chart:
    values = [value for fit in fits for points in fit.loss.values() for _, value in points]
    panel = Panel(
        "Loss by epoch",
        f"{len(fits)} fits, a solid line each for validation and a dashed one for training.",
        x=span,
        y=(0.0, 1.05 * max(values, default=1.0)),
        labels=("epoch", "loss"),
    )
    for name, class_ in (("training", "c1 faint dashed"), ("validation", "c0 faint")):
        for fit in fits:
            panel.line(fit.loss[name], class_)
    legend = (("c0", "validation"), ("c1 dashed", "training"))
    return Chart(panel.drawing(), f"Loss; {SELECTION}", legend=legend)


def _scores(fits: Sequence[LearningCurves], span: tuple[float, float]) -> Chart:
    best = [fit.best[0] for fit in fits if fit.best]
    words = f" The epochs kept lie between {min(best)} and {max(best)}." if best else ""
    panel = Panel(
        "Macro-F1 of the validation patients by epoch",
        f"{len(fits)} fits, a line each; a dot marks the epoch that was kept.{words}",
        x=span,
        labels=("epoch", "macro-F1 (validation)"),
    )
    for fit in fits:
        panel.line(fit.score["macro-F1"], "c2 faint")
        for epoch, value in fit.score["macro-F1"]:
            if fit.best and epoch == fit.best[0]:
                panel.dot(epoch, value, "c2", radius=3)
    caption = f"Macro-F1; {SELECTION}; a dot is the epoch kept"
    return Chart(panel.drawing(), caption, legend=(("c2", "validation"),))


def occlusion_bars(windows: Sequence[Mapping[str, Any]], *, margin: float, tile: float, class_name: str) -> Drawing:
    """Bars of the change in probability, one under each tile of a contact sheet.

    Args:
        windows: as from `occlusion.occlude`.
        margin: width left of the first tile, in the sheet's pixels.
        tile: width of a tile, in the same.
        class_name: the class whose probability it is.
    """
    changes = [float(window["change"]) for window in windows]
    most = max([0.05, *(abs(change) for change in changes if math.isfinite(change))])
    height, middle, reach = 210.0, 92.0, 62.0
    width = margin + tile * len(windows)
    marks = [
        _mark("line", x1=margin, x2=width, y1=middle, y2=middle, class_="axis"),
        _mark("text", "change when", x=8, y=middle - 12, class_="big"),
        _mark("text", "hidden", x=8, y=middle + 14, class_="big"),
    ]
    for k, (window, exact) in enumerate(zip(windows, changes, strict=True)):
        change = round(exact, 2) + 0.0  # no "-0.00"
        left, size = margin + k * tile, abs(change) / most * reach
        up = change >= 0
        bar = {"x": left + tile * 0.25, "y": middle - size if up else middle, "width": tile * 0.5, "height": size}
        marks.append(_mark("rect", class_=f"bar {'up' if up else 'down'}", **bar))
        first, last = window["frames"]
        span = f"{first}\u2013{last}" if first != last else f"{first}"
        above, shown = middle - size - 8 if up else middle + size + 24, f"{change:+.2f}" if change else "0.00"
        for text, y, class_ in ((shown, above, "big"), (span, height - 8, "big quiet")):
            marks.append(_mark("text", text, x=left + tile / 2, y=y, class_=class_, text_anchor="middle"))
    words = "; ".join(
        f"frames {window['frames'][0]} to {window['frames'][1]}: {change:+.2f}"
        for window, change in zip(windows, changes, strict=True)
    )
    title = f"Change in the probability of {class_name} when a stretch of frames is hidden"
    return Drawing(title, words, width, height, marks, "chart strip")


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round values within a range, at most `most`, with steps of 1, 2 or 5 times a power of ten."""
    span = high - low
    exponent = math.floor(math.log10(span / most))
    step = next(
        factor * 10.0**power
        for power in range(exponent, exponent + 3)
        for factor in (1, 2, 5)
        if span / (factor * 10.0**power) <= most - 1
    )
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(k * step, 10) for k in range(first, last + 1)]


def numbers(values: Iterable[Any]) -> list[float]:
    """Values as floats, NaN where there is none."""
    return [math.nan if value is None else float(value) for value in values]


def _mark(element: str, text: str = "", /, **attributes: str | float) -> Mark:
    """A mark; `class_` is `class`, other underscores are hyphens, numbers are pixels."""
    written = {
        key.rstrip("_").replace("_", "-"): value if isinstance(value, str) else _short(value)
        for key, value in attributes.items()
    }
    return Mark(element, written, text)


def _finite(points: Points) -> Iterator[list[tuple[float, float]]]:
    stretch: list[tuple[float, float]] = []
    for x, y in points:
        if math.isfinite(x) and math.isfinite(y):
            stretch.append((x, y))
        elif stretch:
            yield stretch
            stretch = []
    if stretch:
        yield stretch


def _widened(low: float, high: float) -> tuple[float, float]:
    """A range that is one, also of a single value or of what is not finite."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return 0.0, 1.0
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _share(value: float, limits: tuple[float, float]) -> float:
    return min(1.0, max(0.0, (value - limits[0]) / (limits[1] - limits[0])))


def _short(value: float) -> str:
    """A coordinate to a tenth of a pixel, without a useless zero."""
    return f"{value:.1f}".removesuffix(".0")
