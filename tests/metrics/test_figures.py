import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from monai_chd.labels import CLASSES
from monai_chd.metrics import figures

MATRIX = [[13, 5, 4], [7, 18, 4], [0, 0, 0]]
EPOCH = {"epoch": 1, "train_loss": 1.0, "val_loss": 1.1, "val_macro_f1": 0.5, "val_accuracy": 0.6}


@pytest.fixture
def drawn(monkeypatch):
    """Figures that were saved, in order; they are written all the same."""
    saved = []
    write = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *args, **options: (saved.append(figure), write(figure, *args, **options))
    )
    return saved


def texts(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


def curves(axes):
    return {line.get_label(): np.array(line.get_xydata()) for line in axes.lines}


def assert_picture(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG" and min(picture.size) > 400
        assert len(np.unique(np.asarray(picture.convert("L")))) > 10
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_confusion_matrix_shows_counts_shares_classes_and_n(tmp_path, drawn):
    path = figures.confusion_matrix_figure(MATRIX, tmp_path / "c.png", title="Test cases")
    assert_picture(path)
    axes = drawn[0].axes[0]
    assert [text.get_text() for text in axes.texts[::2]] == [str(count) for row in MATRIX for count in row]
    shares = ["59 %", "23 %", "18 %", "24 %", "62 %", "14 %", *["no case"] * 3]
    assert [text.get_text() for text in axes.texts[1::2]] == shares
    assert [label.get_text() for label in axes.get_xticklabels()] == list(CLASSES)
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        f"{name}\nn = {n}" for name, n in zip(CLASSES, (22, 29, 0), strict=True)
    ]
    assert drawn[0].get_suptitle() == "Test cases\nn = 51 cases"


def test_counts_stand_in_the_cell_of_their_true_row_and_predicted_column(tmp_path, drawn):
    figures.confusion_matrix_figure([[0, 9, 0], [0, 0, 0], [0, 0, 1]], tmp_path / "c.png")
    axes = drawn[0].axes[0]
    nine = next(text for text in axes.texts if text.get_text() == "9")
    assert np.round(nine.get_position()).tolist() == [1, 0]
    assert axes.get_xlabel() == "predicted" and axes.get_ylabel() == "true"
    assert axes.images[0].get_array()[0, 1] == 100


@pytest.mark.parametrize("share", np.linspace(0, 1, 21))
def test_text_in_a_cell_has_readable_contrast(share):
    channel = np.array(matplotlib.colormaps["Blues"](share)[:3])
    linear = np.where(channel <= 0.04045, channel / 12.92, ((channel + 0.055) / 1.055) ** 2.4)
    cell, text = linear @ [0.2126, 0.7152, 0.0722], {"white": 1.0, "black": 0.0}[figures._text_colour(share)]
    assert (max(cell, text) + 0.05) / (min(cell, text) + 0.05) >= 4.5  # WCAG AA


def test_title_is_taken_literally_and_wrapped(tmp_path, drawn):
    figures.confusion_matrix_figure(MATRIX, tmp_path / "c.png", title=r"$\nope$ a_b " + "long " * 30)
    lines = drawn[0].get_suptitle().split("\n")
    assert lines[0].startswith(r"$\nope$ a_b long") and max(map(len, lines)) <= 60


@pytest.mark.parametrize(
    "matrix",
    [np.zeros((3, 3), int), [[1, 2], [3, 4]], [[0.5, 0, 0]] * 3, [[-1, 2, 0]] * 3, [1, 2, 3]],
    ids=["no case", "two classes", "shares", "negative", "flat"],
)
def test_what_is_no_confusion_matrix_is_refused(tmp_path, matrix):
    with pytest.raises(ValueError, match="expected counts of shape"):
        figures.confusion_matrix_figure(matrix, tmp_path / "c.png")
    assert list(tmp_path.iterdir()) == []


def test_learning_curves_show_what_they_are_given(tmp_path, drawn):
    history = [{**EPOCH, "epoch": e, "train_loss": 1 / e, "val_macro_f1": 0.4 + 0.1 * (e == 3)} for e in range(1, 6)]
    assert_picture(figures.learning_curves_figure(history, tmp_path / "l.png"))
    loss, score = (curves(axes) for axes in drawn[0].axes)
    assert set(loss) == {"training", "validation", "best epoch 3"}
    assert set(score) == {"macro-F1", "accuracy", "best epoch 3"}
    assert loss["training"].tolist() == [[e, 1 / e] for e in range(1, 6)]
    assert score["macro-F1"][:, 1].tolist() == [entry["val_macro_f1"] for entry in history]
    assert score["best epoch 3"][:, 0].tolist() == loss["best epoch 3"][:, 0].tolist() == [3, 3]
    low, high = drawn[0].axes[1].get_ylim()
    assert low <= 0 and high >= 1 and low > -0.1 and high < 1.1


def test_learning_curves_say_that_they_are_no_test_result(tmp_path, drawn):
    figures.learning_curves_figure([EPOCH], tmp_path / "l.png")
    assert any("validation, used to choose the model: not a test result" in text for text in texts(drawn[0]))


@pytest.mark.parametrize(
    "history",
    [
        [EPOCH],
        [{"epoch": 0}],
        [{"epoch": 1, "train_loss": 1.0}, {"epoch": 2, "train_loss": float("inf")}],
        [{"epoch": e, "val_loss": None, "val_macro_f1": float("nan"), "val_accuracy": 0.5} for e in range(3)],
        [{**EPOCH, "epoch": e} for e in range(300)],
    ],
    ids=["one epoch", "nothing", "diverged", "gaps", "long"],
)
def test_incomplete_histories_are_drawn(tmp_path, history):
    assert_picture(figures.learning_curves_figure(history, tmp_path / "l.png"))


def test_epochs_without_validation_are_bridged(tmp_path, drawn):
    history = [{"epoch": e, "val_loss": 1.0 if e % 2 else None} for e in range(1, 6)]
    figures.learning_curves_figure(history, tmp_path / "l.png")
    assert curves(drawn[0].axes[0])["validation"][:, 0].tolist() == [1, 3, 5]


@pytest.mark.parametrize(
    ("history", "message"), [([], "no entry"), ([EPOCH, {"train_loss": 1.0}], r"none in history\[1\]")]
)
def test_history_without_epochs_is_refused(tmp_path, history, message):
    with pytest.raises(ValueError, match=message):
        figures.learning_curves_figure(history, tmp_path / "l.png")
    assert list(tmp_path.iterdir()) == []


def test_failed_drawing_keeps_the_old_picture(tmp_path, monkeypatch):
    path = figures.confusion_matrix_figure(MATRIX, tmp_path / "c.png")
    before = path.read_bytes()

    def fail(figure, target, **options):
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        figures.confusion_matrix_figure([[1, 0, 0]] * 3, path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_pyplot_is_not_loaded():
    code = "import sys, monai_chd.metrics.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    root = Path(figures.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
