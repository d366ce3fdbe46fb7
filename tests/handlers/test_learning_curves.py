"""Each epoch is a row of figures and a point of the curves."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_engines import engines

from monai_chd.handlers import LearningCurves, learning_curves, probability_loss


def test_learning_curves_are_the_means_of_each_epoch_and_a_picture(tmp_path):
    trainer, checkpoints = engines(tmp_path, [0.25, 0.5])
    trainer.run([0, 0, 0], max_epochs=2)
    expected = [{"epoch": 1, "train_loss": 2.0, "score": 0.25}, {"epoch": 2, "train_loss": 5.0, "score": 0.5}]
    assert checkpoints.curves.history == expected
    with (tmp_path / "learning_curves.csv").open() as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    assert rows == expected
    with Image.open(tmp_path / "learning_curves.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 100
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize(("wait", "drawn"), [(3600.0, 1), (-1.0, 4)])
def test_the_picture_of_the_curves_waits_and_is_drawn_at_the_end(tmp_path, monkeypatch, wait, drawn):
    pictures = []
    monkeypatch.setattr(learning_curves, "learning_curves_figure", lambda history, path: pictures.append(len(history)))
    monkeypatch.setattr(LearningCurves, "DRAW_AFTER", wait)
    trainer, _ = engines(tmp_path, [0.1, 0.2, 0.3])
    trainer.run([0], max_epochs=3)
    assert len(pictures) == drawn and pictures[-1] == 3


def test_the_validation_loss_is_the_mean_negative_log_of_the_true_class():
    probabilities, labels = torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]]), torch.tensor([0, 2])
    assert probability_loss(probabilities, labels).item() == pytest.approx(np.log(2) / 2)
    expected = torch.nn.functional.cross_entropy(probabilities[:1].log(), labels[:1])
    assert probability_loss(probabilities[:1], labels[:1]).item() == pytest.approx(expected.item())
    assert torch.isfinite(probability_loss(torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([0])))
