"""Marks stand where the data are, ticks are round numbers, and every chart says in words what it shows."""

import math
from xml.etree import ElementTree

import pytest

from monai_chd.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Panel,
    numbers,
    occlusion_bars,
    picture,
    ticks,
)


def parsed(markup):
    return ElementTree.fromstring(markup)


def of_class(root, tag, class_):
    return [one for one in root.iter(tag) if class_ in one.get("class", "").split()]


def points(polyline):
    return [tuple(map(float, pair.split(","))) for pair in polyline.get("points").split()]


def test_corners_of_the_data_are_corners_of_the_frame():
    panel = Panel("t", "d", x=(0, 10), y=(-1, 1))
    assert (panel.x(0), panel.x(10)) == (LEFT, WIDTH - RIGHT)
    assert (panel.y(-1), panel.y(1)) == (HEIGHT - BOTTOM, TOP)
    assert panel.x(5) == (LEFT + WIDTH - RIGHT) / 2 and panel.y(0) == (TOP + HEIGHT - BOTTOM) / 2


def test_what_lies_outside_stays_at_the_edge():
    panel = Panel("t", "d")
    assert panel.x(-3) == LEFT and panel.y(2) == TOP


def test_a_line_goes_through_its_points():
    panel = Panel("t", "d")
    panel.line([(0, 0), (0.5, 1), (1, 0)], "c0")
    (line,) = of_class(parsed(panel.svg()), "polyline", "c0")
    assert points(line) == [
        (LEFT, HEIGHT - BOTTOM),
        (LEFT + (WIDTH - LEFT - RIGHT) / 2, TOP),
        (WIDTH - RIGHT, HEIGHT - BOTTOM),
    ]


def test_what_is_not_finite_parts_a_line_and_a_lone_point_is_a_dot():
    panel = Panel("t", "d")
    panel.line([(0, 0), (0.1, 0.1), (0.2, math.nan), (0.3, 0.3), (0.4, math.inf), (0.5, 0.5), (0.6, 0.6)], "c1")
    root = parsed(panel.svg())
    assert [len(points(line)) for line in of_class(root, "polyline", "c1")] == [2, 2]
    (dot,) = of_class(root, "circle", "c1")
    assert float(dot.get("cx")) == pytest.approx(panel.x(0.3), abs=0.05)


def test_whisker_bar_and_diamond_are_as_long_as_what_they_show():
    panel = Panel("t", "d")
    panel.whisker(0.5, 0.2, 0.7, "c0")
    panel.bar(0.1, 0.3, 0, 0.5, "up")
    panel.diamond(0.5, 0.5, "c1")
    root = parsed(panel.svg())
    (whisker,), (bar,) = of_class(root, "line", "whisker"), of_class(root, "rect", "bar")
    tall, wide = HEIGHT - TOP - BOTTOM, WIDTH - LEFT - RIGHT
    assert float(whisker.get("y1")) - float(whisker.get("y2")) == pytest.approx(0.5 * tall, abs=0.15)
    assert float(bar.get("height")) == pytest.approx(0.5 * tall, abs=0.1)
    assert float(bar.get("width")) == pytest.approx(0.2 * wide, abs=0.1)
    assert len(of_class(root, "path", "c1")) == 1


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 0.4, [0, 0.1, 0.2, 0.3, 0.4]),
        (1, 25, [5, 10, 15, 20, 25]),
        (0, 1.43, [0, 0.5, 1]),
        (0.5, 1.5, [0.6, 0.8, 1, 1.2, 1.4]),
        (0, 300, [0, 100, 200, 300]),
    ],
)
def test_ticks_are_round_and_few(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize("span", [(0, 0), (3, 3), (math.nan, 1), (0, math.inf)])
def test_a_range_that_is_none_still_gives_a_chart(span):
    panel = Panel("t", "d", x=span, y=span)
    panel.line([(3, 3), (0, 0)], "c0")
    assert "nan" not in panel.svg() and "inf" not in panel.svg()


def test_a_chart_is_an_image_with_name_and_description_and_text_is_escaped():
    root = parsed(Panel("<b>&", 'says "<i>"', labels=("<x>", "<y>")).svg())
    assert root.get("role") == "img" and root.get("aria-label") == '<b>&. says "<i>"'
    assert root.find("title").text == "<b>&" and root.find("desc").text == 'says "<i>"'
    assert {"<x>", "<y>"} <= {text.text for text in root.iter("text")}


def test_a_picture_keeps_its_proportions_and_has_no_fixed_size():
    root = parsed(picture(100, 50.25, [], title="t", description="d"))
    assert root.get("viewBox") == "0 0 100 50.2" and root.get("width") is None and root.get("height") is None


def test_colours_come_from_the_style_sheet_only():
    panel = Panel("t", "d")
    panel.line([(0, 0), (1, 1)], "c0")
    panel.note(0.5, 0.5, "here")
    assert "#" not in panel.svg() and "fill=" not in panel.svg() and "stroke=" not in panel.svg()


def test_occlusion_bars_stand_under_their_tiles_and_go_up_or_down_with_the_change():
    windows = [
        {"frames": [1, 5], "change": -0.4},
        {"frames": [6, 6], "change": 0.2},
        {"frames": [7, 9], "change": -0.001},
    ]
    root = parsed(occlusion_bars(windows, margin=150, tile=160, class_name="A & B"))
    bars = of_class(root, "rect", "bar")
    centres = [float(bar.get("x")) + float(bar.get("width")) / 2 for bar in bars]
    assert centres == [230, 390, 550]
    heights = [float(bar.get("height")) for bar in bars]
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.2) and heights[2] == 0
    middle = float(of_class(root, "line", "axis")[0].get("y1"))
    assert float(bars[0].get("y")) == middle and float(bars[1].get("y")) + heights[1] == pytest.approx(middle, abs=0.1)
    texts = [text.text for text in root.iter("text")]
    assert {"-0.40", "+0.20", "0.00", "1\u20135", "6", "7\u20139"} <= set(texts)
    assert "probability of A & B" in root.get("aria-label") and "frames 1 to 5: -0.40" in root.get("aria-label")
    assert float(root.get("viewBox").split()[2]) == 150 + 3 * 160


def test_small_changes_are_not_blown_up():
    root = parsed(occlusion_bars([{"frames": [1, 2], "change": 0.01}], margin=0, tile=100, class_name="A"))
    big = parsed(occlusion_bars([{"frames": [1, 2], "change": 0.05}], margin=0, tile=100, class_name="A"))
    small, large = (float(of_class(one, "rect", "bar")[0].get("height")) for one in (root, big))
    assert small == pytest.approx(large / 5, abs=0.1)


def test_missing_numbers_are_nan():
    assert numbers([1, None, 0.5])[::2] == [1.0, 0.5] and math.isnan(numbers([None])[0])
