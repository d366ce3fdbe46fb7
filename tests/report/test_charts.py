"""Marks stand where the data are; charts draw what the report holds, with interval and n, and say in words what they show."""

import copy
import math

import pytest
from tiny_report import make_report, parsed, text_of

from monai_chd.labels import CLASSES
from monai_chd.metrics.wording import format_estimate
from monai_chd.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Drawing,
    Panel,
    learning_charts,
    numbers,
    occlusion_bars,
    pr_charts,
    reliability_charts,
    risk_coverage_chart,
    roc_charts,
    ticks,
)
from monai_chd.report.page import TEMPLATES

WRITTEN = TEMPLATES.get_template("charts.html.j2").module


def svg(drawing):
    """A drawing as the page has it."""
    return parsed(WRITTEN.svg(drawing)).find("svg")


def figures(*charts):
    """Charts with their captions as the page has them."""
    return list(parsed(WRITTEN.charts(charts)).iter("figure"))


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return make_report(tmp_path_factory.mktemp("report"))


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
    (line,) = of_class(svg(panel.drawing()), "polyline", "c0")
    assert points(line) == [
        (LEFT, HEIGHT - BOTTOM),
        (LEFT + (WIDTH - LEFT - RIGHT) / 2, TOP),
        (WIDTH - RIGHT, HEIGHT - BOTTOM),
    ]


def test_what_is_not_finite_parts_a_line_and_a_lone_point_is_a_dot():
    panel = Panel("t", "d")
    panel.line([(0, 0), (0.1, 0.1), (0.2, math.nan), (0.3, 0.3), (0.4, math.inf), (0.5, 0.5), (0.6, 0.6)], "c1")
    root = svg(panel.drawing())
    assert [len(points(line)) for line in of_class(root, "polyline", "c1")] == [2, 2]
    (dot,) = of_class(root, "circle", "c1")
    assert float(dot.get("cx")) == pytest.approx(panel.x(0.3), abs=0.05)


def test_a_whisker_is_as_long_as_its_interval_and_a_diamond_is_a_path():
    panel = Panel("t", "d")
    panel.whisker(0.5, 0.2, 0.7, "c0")
    panel.diamond(0.5, 0.5, "c1")
    root = svg(panel.drawing())
    (whisker,) = of_class(root, "line", "whisker")
    tall = HEIGHT - TOP - BOTTOM
    assert float(whisker.get("y1")) - float(whisker.get("y2")) == pytest.approx(0.5 * tall, abs=0.15)
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
    assert "nan" not in WRITTEN.svg(panel.drawing()) and "inf" not in WRITTEN.svg(panel.drawing())


def test_a_chart_is_an_image_with_name_and_description_and_text_is_escaped():
    root = svg(Panel("<b>&", 'says "<i>"', labels=("<x>", "<y>")).drawing())
    assert root.get("role") == "img" and root.get("aria-label") == '<b>&. says "<i>"'
    assert root.find("title").text == "<b>&" and root.find("desc").text == 'says "<i>"'
    assert {"<x>", "<y>"} <= {text.text for text in root.iter("text")}


def test_a_picture_keeps_its_proportions_and_has_no_fixed_size():
    root = svg(Drawing("t", "d", 100.0, 50.5, []))
    assert root.get("viewBox") == "0 0 100 50.5" and root.get("width") is None and root.get("height") is None


def test_colours_come_from_the_style_sheet_only():
    panel = Panel("t", "d")
    panel.line([(0, 0), (1, 1)], "c0")
    panel.note(0.5, 0.5, "here", shift=(0, 0))
    written = WRITTEN.svg(panel.drawing())
    assert "#" not in written and "fill=" not in written and "stroke=" not in written


def test_occlusion_bars_stand_under_their_tiles_and_go_up_or_down_with_the_change():
    windows = [
        {"frames": [1, 5], "change": -0.4},
        {"frames": [6, 6], "change": 0.2},
        {"frames": [7, 9], "change": -0.001},
    ]
    root = svg(occlusion_bars(windows, margin=150, tile=160, class_name="A & B"))
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
    root = svg(occlusion_bars([{"frames": [1, 2], "change": 0.01}], margin=0, tile=100, class_name="A"))
    big = svg(occlusion_bars([{"frames": [1, 2], "change": 0.05}], margin=0, tile=100, class_name="A"))
    small, large = (float(of_class(one, "rect", "bar")[0].get("height")) for one in (root, big))
    assert small == pytest.approx(large / 5, abs=0.1)


def test_missing_numbers_are_nan():
    assert numbers([1, None, 0.5])[::2] == [1.0, 0.5] and math.isnan(numbers([None])[0])


def caption(root):
    return text_of(root.find("figcaption"))


def lines(root, class_):
    found = [one for one in root.iter("polyline") if class_ in one.get("class").split()]
    return [[tuple(map(float, pair.split(","))) for pair in one.get("points").split()] for one in found]


@pytest.mark.parametrize(
    ("draw", "kind", "x", "y"), [(roc_charts, "roc", "fpr", "tpr"), (pr_charts, "pr", "recall", "precision")]
)
def test_each_class_has_its_curve_and_every_point_of_it(report, draw, kind, x, y):
    results = report["results"]
    plane = Panel("", "")
    for k, (name, drawn) in enumerate(zip(CLASSES, draw(results, CLASSES), strict=True)):
        curve = results["curves"][kind][name]
        (found,) = lines(figures(drawn)[0], f"c{k}")
        expected = [(plane.x(a), plane.y(b)) for a, b in zip(curve[x], curve[y], strict=True)]
        assert found == pytest.approx(expected, abs=0.051) if len(expected) == 1 else len(found) == len(expected)
        for one, two in zip(found, expected, strict=True):
            assert one == pytest.approx(two, abs=0.051)


def test_roc_captions_have_the_area_with_interval_and_n(report):
    results = report["results"]
    for name, drawn in zip(CLASSES, roc_charts(results, CLASSES), strict=True):
        assert format_estimate(results["all"]["per_class"][name]["auc"]) in caption(*figures(drawn))


def test_chance_is_the_diagonal_for_roc_and_the_share_of_the_class_for_precision(report):
    results = report["results"]
    plane = Panel("", "")
    (diagonal,) = lines(svg(roc_charts(results, CLASSES)[0].drawing), "reference")
    assert diagonal == [(plane.x(0), plane.y(0)), (plane.x(1), plane.y(1))]
    (level,) = lines(svg(pr_charts(results, CLASSES)[2].drawing), "reference")
    assert [y for _, y in level] == pytest.approx([plane.y(7 / 33)] * 2, abs=0.051)


def test_a_class_without_a_curve_is_left_out(report):
    results = copy.deepcopy(report["results"])
    del results["curves"]["roc"][CLASSES[1]]
    results["curves"]["pr"][CLASSES[1]] = None
    assert len(roc_charts(results, CLASSES)) == len(pr_charts(results, CLASSES)) == 2


def test_reliability_shows_both_states_with_a_point_and_an_interval_a_bin(report):
    results = report["results"]
    before, after = figures(*reliability_charts(results))
    for root, key in ((before, "before"), (after, "after")):
        bins = results["curves"]["reliability"][key]["bins"]
        dots = [one for one in root.iter("circle") if "c0" in one.get("class")]
        whiskers = [one for one in root.iter("line") if "whisker" in one.get("class")]
        assert len(dots) == len(whiskers) == len(bins) > 1
        assert format_estimate(results["curves"]["reliability"][key]["ece"]) in caption(root)
        label = root.find("svg").get("aria-label")
        assert all(f"n={one['n']:g}" in label for one in bins)
    assert "Before temperature" in caption(before) and "After temperature" in caption(after)


def test_without_raw_probabilities_there_is_no_before(report):
    results = copy.deepcopy(report["results"])
    results["curves"]["reliability"]["before"] = None
    (only,) = reliability_charts(results)
    assert "After temperature" in caption(*figures(only))


def test_the_published_point_is_drawn_where_it_is_and_called_another_task(report):
    results = report["results"]
    root = figures(risk_coverage_chart(results))[0]
    (diamond,) = [one for one in root.iter("path") if "c1" in one.get("class")]
    left = float(diamond.get("d").split("L")[3].split()[0])
    right = float(diamond.get("d").split("L")[1].split()[0])
    assert (left + right) / 2 == pytest.approx(Panel("", "").x(0.884), abs=0.1)
    words = [one.text for one in root.iter("text")]
    assert "another task" in words and any("ImageCHD" in word for word in words)
    assert "82.0% right at 88.4% coverage" in root.find("svg").get("aria-label")
    assert format_estimate(results["curves"]["risk_coverage"]["aurc"]) in caption(root)


def test_risk_is_drawn_without_a_published_point_as_well(report):
    results = copy.deepcopy(report["results"])
    results["curves"]["risk_coverage"]["published"] = None
    root = figures(risk_coverage_chart(results))[0]
    assert not list(root.iter("path")) and len(lines(root, "c0")) == 1


def test_learning_curves_have_a_line_a_fit_and_say_that_they_are_validation(report):
    losses, scores = figures(*learning_charts(report["training"]))
    fits = len(report["training"])
    assert len(lines(losses, "c0")) == len(lines(losses, "c1")) == len(lines(scores, "c2")) == fits
    assert all(len(line) == 25 for line in lines(scores, "c2"))
    assert len(list(scores.iter("circle"))) == fits
    for root in (losses, scores):
        assert "chose the model: not a test result" in caption(root)


def test_epochs_without_validation_are_joined_over_and_none_is_no_number():
    history = [
        {"epoch": e, "train_loss": 1.0, "val_loss": None if e % 2 else 0.9, "val_macro_f1": None} for e in range(1, 7)
    ]
    losses, scores = figures(*learning_charts([{"history": history}]))
    assert [len(line) for line in lines(losses, "c0")] == [3] and [len(line) for line in lines(losses, "c1")] == [6]
    assert lines(scores, "c2") == []


@pytest.mark.parametrize("training", [[], [{"repeat": 0, "fold": 0, "history": [], "best_epoch": None}]])
def test_without_a_history_there_is_no_chart(training):
    assert learning_charts(training) == []
