"""The Dice that a validation chooses by, and the table an evaluation leaves."""

import csv
import json

import numpy as np
import pytest
import torch
from ignite.engine import Engine

from monai_chd.handlers import DiceTable, StructureDice
from monai_chd.labels import STRUCTURES


def case(seed: int, right: float):
    """Logits of one case and its label map, of which about a share is right."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(1, 8, (1, 4, 8, 8))
    predicted = np.where(rng.random(drawn.shape) < right, drawn, rng.integers(0, 8, drawn.shape))
    logits = torch.nn.functional.one_hot(torch.from_numpy(predicted[0]), 8).permute(3, 0, 1, 2).float()
    return logits, torch.from_numpy(drawn)


@pytest.fixture
def done(tmp_path):
    cases = [case(1, 0.9), case(2, 0.5)]
    engine = Engine(lambda engine, batch: ([batch[0]], [batch[1]]))
    metric = StructureDice()
    metric.attach(engine, "val_mean_dice")
    records = [{"patient": "1001", "image": "/scans/a.nii.gz"}, {"patient": "1002", "image": "/scans/b.nii.gz"}]
    DiceTable(tmp_path, metric, records).attach(engine)
    engine.run(cases)
    return engine, metric, tmp_path


def test_the_mean_is_of_the_structures_which_stand_beside_it(done):
    engine, metric, _ = done
    found = engine.state.metrics
    of_structures = [found[f"val_dice_{name}"] for name in STRUCTURES]
    assert found["val_mean_dice"] == pytest.approx(np.mean(of_structures)) and 0.6 < found["val_mean_dice"] < 0.9
    np.testing.assert_allclose(np.mean(metric.rows, 0), of_structures)


def test_the_table_has_a_row_a_case_and_the_means_have_intervals(done):
    _, metric, folder = done
    rows = list(csv.DictReader((folder / "dice.csv").read_text().splitlines()))
    assert [(row["patient"], row["image"]) for row in rows] == [("1001", "a.nii.gz"), ("1002", "b.nii.gz")]
    assert float(rows[1]["PA"]) == pytest.approx(metric.rows[1][6], abs=1e-4)
    means = json.loads((folder / "dice.json").read_text())
    assert list(means) == [*STRUCTURES, "mean"] and means["LV"]["n"] == 2
    assert means["mean"]["low"] <= means["mean"]["value"] <= means["mean"]["high"]


def test_a_second_epoch_stands_alone():
    metric = StructureDice()
    engine = Engine(lambda engine, batch: ([batch[0]], [batch[1]]))
    metric.attach(engine, "val_mean_dice")
    engine.run([case(1, 0.9)])
    engine.run([case(2, 0.5)])
    assert len(metric.rows) == 1
