"""Charts as SVG that lives inside an HTML page: colours by its style sheet, text alternatives, no script.

Draws points it is given; computes no figure. Sizes are in CSS pixels on a phone: a chart is about as wide as its screen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from monai_chd.report.markup import Content, Markup, element

WIDTH, HEIGHT = 340.0, 270.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 14.0, 42.0

Points = Sequence[tuple[float, float]]


class Panel:
    """The plane of one chart: maps data to pixels and draws its frame.

    Args:
        title: what the chart shows, as its accessible name.
        description: the same in words, for who cannot see it.
        x: lowest and highest value, left to right.
        y: lowest and highest value, bottom to top.
        labels: of the x and the y axis.
        height: of the whole chart.
    """

    def __init__(
        self,
        title: str,
        description: str,
        *,
        x: tuple[float, float] = (0.0, 1.0),
        y: tuple[float, float] = (0.0, 1.0),
        labels: tuple[str, str] = ("", ""),
        height: float = HEIGHT,
    ) -> None:
        self.title, self.description = title, description
        self.x_range, self.y_range = _widened(*x), _widened(*y)
        self.labels = labels
        self.height = height
        self.parts: list[Markup] = []

    def x(self, value: float) -> float:
        """Pixels from the left; values outside the range stay at its edge."""
        return LEFT + _share(value, self.x_range) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Pixels from the top; values outside the range stay at its edge."""
        return self.height - BOTTOM - _share(value, self.y_range) * (self.height - TOP - BOTTOM)

    def line(self, points: Points, class_: str, **attributes: str) -> None:
        """A line through points; those that are not finite part it."""
        for stretch in _finite(points):
            if len(stretch) == 1:
                self.dot(*stretch[0], class_, radius=2.2)
                continue
            path = " ".join(f"{_short(self.x(a))},{_short(self.y(b))}" for a, b in stretch)
            self.parts.append(element("polyline", points=path, class_=f"line {class_}", **attributes))

    def dot(self, x: float, y: float, class_: str, *, radius: float = 3.5) -> None:
        """A point."""
        self.parts.append(
            element("circle", cx=_short(self.x(x)), cy=_short(self.y(y)), r=_short(radius), class_=f"dot {class_}")
        )

    def diamond(self, x: float, y: float, class_: str) -> None:
        """A point of another kind."""
        a, b, r = self.x(x), self.y(y), 6.5
        corners = [(a, b - r), (a + r, b), (a, b + r), (a - r, b)]
        path = f"M{'L'.join(f'{_short(x)} {_short(y)}' for x, y in corners)}Z"
        self.parts.append(element("path", d=path, class_=f"dot {class_}"))

    def whisker(self, x: float, low: float, high: float, class_: str) -> None:
        """An interval upright at x."""
        a = _short(self.x(x))
        self.parts.append(
            element("line", x1=a, x2=a, y1=_short(self.y(low)), y2=_short(self.y(high)), class_=f"whisker {class_}")
        )

    def bar(self, left: float, right: float, bottom: float, top: float, class_: str) -> None:
        """A rectangle between two values of x and two of y."""
        a, b = sorted((self.x(left), self.x(right)))
        c, d = sorted((self.y(bottom), self.y(top)))
        self.parts.append(
            element("rect", x=_short(a), y=_short(c), width=_short(b - a), height=_short(d - c), class_=f"bar {class_}")
        )

    def note(
        self, x: float, y: float, text: str, *, anchor: str = "start", shift: tuple[float, float] = (0, 0)
    ) -> None:
        """Text at a point of the data, shifted by pixels to the right and down."""
        a, b = self.x(x) + shift[0], self.y(y) + shift[1]
        self.parts.append(element("text", text, x=_short(a), y=_short(b), class_="note", text_anchor=anchor))

    def svg(self) -> Markup:
        """The chart."""
        return picture(
            WIDTH, self.height, [*self._frame(), *self.parts], title=self.title, description=self.description
        )

    def _frame(self) -> Iterator[Markup]:
        left, right = LEFT, WIDTH - RIGHT
        bottom = self.height - BOTTOM
        for value in ticks(*self.y_range):
            at = _short(self.y(value))
            yield element("line", x1=left, x2=right, y1=at, y2=at, class_="grid")
            yield element(
                "text", _label(value), x=left - 6, y=_short(self.y(value) + 4), class_="tick", text_anchor="end"
            )
        for value in ticks(*self.x_range):
            yield element(
                "text", _label(value), x=_short(self.x(value)), y=bottom + 16, class_="tick", text_anchor="middle"
            )
        yield element("line", x1=left, x2=right, y1=bottom, y2=bottom, class_="axis")
        yield element("line", x1=left, x2=left, y1=TOP, y2=bottom, class_="axis")
        middle = (left + right) / 2
        yield element("text", self.labels[0], x=middle, y=self.height - 8, class_="label", text_anchor="middle")
        upright = _short((TOP + bottom) / 2)
        yield element(
            "text",
            self.labels[1],
            x=0,
            y=0,
            class_="label",
            text_anchor="middle",
            transform=f"translate(11 {upright}) rotate(-90)",
        )


def picture(
    width: float, height: float, content: Content, *, title: str, description: str, class_: str = "chart"
) -> Markup:
    """An SVG image with an accessible name and description, as wide as its place and never wider than it is sharp."""
    return element(
        "svg",
        element("title", title),
        element("desc", description),
        content,
        viewBox=f"0 0 {_short(width)} {_short(height)}",
        role="img",
        aria_label=f"{title}. {description}",
        class_=class_,
    )


def occlusion_bars(windows: Sequence[Mapping[str, Any]], *, margin: float, tile: float, class_name: str) -> Markup:
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
    parts = [
        element("line", x1=margin, x2=_short(width), y1=middle, y2=middle, class_="axis"),
        element("text", "change when", x=8, y=middle - 12, class_="big"),
        element("text", "hidden", x=8, y=middle + 14, class_="big"),
    ]
    for k, (window, exact) in enumerate(zip(windows, changes, strict=True)):
        change = round(exact, 2) + 0.0  # no "-0.00"
        left, size = margin + k * tile, abs(change) / most * reach
        up = change >= 0
        parts.append(
            element(
                "rect", x=_short(left + tile * 0.25), y=_short(middle - size if up else middle), width=_short(tile * 0.5),
                height=_short(size), class_=f"bar {'up' if up else 'down'}",
            )
        )  # fmt: skip
        at = _short(left + tile / 2)
        value = middle - size - 8 if up else middle + size + 24
        parts.append(
            element(
                "text",
                f"{change:+.2f}" if change else "0.00",
                x=at,
                y=_short(value),
                class_="big",
                text_anchor="middle",
            )
        )
        first, last = window["frames"]
        span = f"{first}\u2013{last}" if first != last else f"{first}"
        parts.append(element("text", span, x=at, y=height - 8, class_="big quiet", text_anchor="middle"))
    words = "; ".join(
        f"frames {window['frames'][0]} to {window['frames'][1]}: {change:+.2f}"
        for window, change in zip(windows, changes, strict=True)
    )
    title = f"Change in the probability of {class_name} when a stretch of frames is hidden"
    return picture(width, height, parts, title=title, description=words, class_="chart strip")


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


def numbers(values: Iterable[Any]) -> list[float]:
    """Values as floats, NaN where there is none."""
    return [math.nan if value is None else float(value) for value in values]


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


def _label(value: float) -> str:
    return f"{value:g}"
