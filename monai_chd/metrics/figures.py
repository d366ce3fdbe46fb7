"""Pictures of an evaluation and of a training, as PNG files.

Draws what it is given: figures and intervals come from `estimates`. No pyplot, hence no global state and no display.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from monai_chd.errors import UserError
from monai_chd.files import replacing
from monai_chd.labels import CLASSES
from monai_chd.metrics.curves import learning_curves

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
"""Okabe and Ito's colours, told apart with any colour vision; line styles differ as well, for print in grey."""

STROKES = {
    "training": (ORANGE, "--"),
    "validation": (BLUE, "-"),
    "macro-F1": (BLUE, "-"),
    "accuracy": (GREEN, "--"),
    "mean Dice": (BLUE, "-"),
}
"""Colour and line of each series of learning curves."""

SELECTION_NOTE = "validation, used to choose the model: not a test result"


def confusion_matrix_figure(matrix: ArrayLike, path: str | os.PathLike[str], *, title: str = "") -> Path:
    """Draw a confusion matrix: counts and shares of the true class in the cells, the shares as colour.

    Args:
        matrix: counts, shape (K, K), rows true, columns predicted, in the order of `labels.CLASSES`.
        path: the PNG to write.
        title: what was evaluated; the number of cases is added.

    Returns:
        `path`.

    Raises:
        UserError: another shape, counts that are none, or no case.
    """
    counts = np.asarray(matrix)
    size = len(CLASSES)
    if counts.shape != (size, size) or counts.dtype.kind not in "iu" or (counts < 0).any() or not counts.any():
        raise UserError(f"expected counts of shape {(size, size)}, at least one case, came {counts.tolist()}")
    support = counts.sum(axis=1)
    shares = 100 * counts / np.maximum(support, 1)[:, None]  # percent of the row; a row without cases stays at 0
    figure = Figure(figsize=(6.4, 5.4), layout="constrained")
    axes = figure.add_subplot()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    bar = figure.colorbar(picture, ax=axes, shrink=0.82, label="share of the true class (%)")
    bar.outline.set_visible(False)
    _label_classes(axes, support)
    for i, j in np.ndindex(size, size):
        share = f"{shares[i, j]:.0f} %" if support[i] else "no case"
        colour = _text_colour(shares[i, j] / 100)
        axes.text(j, i - 0.08, f"{counts[i, j]}", ha="center", va="center", color=colour, size=17, weight="bold")
        axes.text(j, i + 0.2, share, ha="center", va="center", color=colour, size=10)
    _set_title(figure, title or "Confusion matrix", f"n = {counts.sum()} cases")
    return _save(figure, Path(path))


def learning_curves_figure(history: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]) -> Path:
    """Draw losses, and the scores on the validation cases, by epoch, and mark the best epoch.

    Args:
        history: as for `curves.learning_curves`, which says what is drawn.
        path: the PNG to write.

    Returns:
        `path`.

    Raises:
        UserError: no epoch, or an entry without `epoch`.
    """
    drawn = learning_curves(history)
    figure = Figure(figsize=(9.6, 4.8), layout="constrained")
    loss, score = figure.subplots(1, 2, sharex=True)
    for axes, series in ((loss, drawn.loss), (score, drawn.score)):
        for name, points in series.items():
            _draw_curve(axes, name, points)
    loss.set(title="Loss", ylabel="loss", ylim=(0, 1.05 * loss.get_ylim()[1]))
    score.set(
        title=f"{' and '.join(drawn.score) or 'score'} (validation)".capitalize(), ylabel="score", ylim=(-0.02, 1.02)
    )
    reason = ""
    if drawn.best:
        epoch, why = drawn.best
        reason = f"; best epoch: {why}"
        for axes in (loss, score):
            axes.axvline(epoch, color="#555555", linestyle=":", linewidth=1.4, label=f"best epoch {epoch}")
    for axes in (loss, score):
        _finish_curves(axes)
    _set_title(figure, "Learning curves", SELECTION_NOTE + reason)
    return _save(figure, Path(path))


def _label_classes(axes: Axes, support: NDArray[np.int64]) -> None:
    ticks = np.arange(len(CLASSES))
    axes.set_xticks(ticks, CLASSES)
    axes.set_yticks(ticks, [f"{name}\nn = {n}" for name, n in zip(CLASSES, support, strict=True)])
    axes.set_xlabel("predicted", labelpad=8)
    axes.set_ylabel("true", labelpad=8)
    axes.tick_params(length=0)
    # White lines part the cells, so that two pale neighbours do not run together.
    axes.set_xticks(ticks[1:] - 0.5, minor=True)
    axes.set_yticks(ticks[1:] - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=3)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_color("#BBBBBB")


def _text_colour(share: float) -> str:
    """Choose black or white by the larger contrast on the cell's colour (WCAG relative luminance)."""
    rgb = np.array(colormaps["Blues"](share)[:3])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return "white" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "black"


def _draw_curve(axes: Axes, name: str, points: Sequence[tuple[float, float]]) -> None:
    if points:
        colour, line = STROKES[name]
        # Single points would be invisible as a line.
        marker = "o" if len(points) <= 40 else ""
        epochs, values = zip(*points, strict=True)
        axes.plot(epochs, values, line, color=colour, marker=marker, markersize=3.5, linewidth=1.8, label=name)


def _finish_curves(axes: Axes) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        # Below the panel, where it hides no curve.
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False, fontsize=9)
    else:
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", va="center", color="#555555")


def _set_title(figure: Figure, title: str, second: str) -> None:
    # A file name may hold a dollar sign, which would start mathematics.
    figure.suptitle("\n".join([*textwrap.wrap(title, 60), second]), size=12, parse_math=False)


def _save(figure: Figure, path: Path) -> Path:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, facecolor="white", bbox_inches="tight", pad_inches=0.15)
    return path
