"""The report of flags as a second task: how well each is told, and what the class that they make is worth."""

import csv
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from monai_chd.crossval.flag_results import flag_results

N = 24


@pytest.fixture
def made(tmp_path):
    """Twelve patients with VSD and twelve normal ones; the flag is told rightly but for 0 and 12, the class but for 1."""
    rng = np.random.default_rng(0)
    rows = []
    for n in range(N):
        label = "Non-Cyanotic" if n < 12 else "Normal"
        prediction = "Cyanotic" if n == 1 else label
        rows.append(
            {
                "repeat": 0,
                "fold": n % 2,
                "image": f"{n}.nii",
                "patient": f"P{n}",
                "label": label,
                "prediction": prediction,
            }
        )
    for fold in range(2):
        folder = tmp_path / "fits" / f"r0f{fold}" / "evaluation"
        folder.mkdir(parents=True)
        with (folder / "flags.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "ASD", *(["VSD"]), "class_by_flags", "prediction"])
            for row in (row for row in rows if row["fold"] == fold):
                n = int(row["patient"][1:])
                told = (n < 12) != (n in (0, 12))
                by = "" if n == 23 else "Non-Cyanotic" if told else "Normal"
                p = rng.uniform(0.6, 0.9) if told else rng.uniform(0.1, 0.4)
                writer.writerow([row["image"], "0.1000", f"{p:.4f}", by, row["prediction"]])
    flags = {f"P{n}": ["VSD"] if n < 12 else [] for n in range(N)}
    design = SimpleNamespace(config={"flag_weight": 0.1}, flags=flags, repeats=1, folds=2)
    return design, tmp_path, pd.DataFrame(rows)


def test_each_flag_and_the_second_opinion(made):
    found = flag_results(*made)
    by_name = {one["flag"]: one for one in found["flags"]}
    assert by_name["VSD"]["patients"] == 12 and 0.7 < by_name["VSD"]["auc"]["value"] < 1
    assert by_name["ASD"]["auc"]["value"] is None
    assert found["open"] == 1
    assert found["by_flags"]["value"] == pytest.approx(21 / 23) and found["by_flags"]["n"] == 23
    assert found["agree"]["value"] == 1 and found["agree"]["n"] == 20
    assert found["disagree"]["value"] == pytest.approx(2 / 3)


def test_without_the_task_there_is_nothing_to_say(made):
    design, folder, table = made
    design.config["flag_weight"] = 0
    assert flag_results(design, folder, table) is None


def test_a_file_that_went_missing_is_named(made):
    design, folder, table = made
    (folder / "fits" / "r0f1" / "evaluation" / "flags.csv").unlink()
    with pytest.raises(ValueError, match=r"r0f1/evaluation/flags\.csv: missing, though the fit was finished"):
        flag_results(design, folder, table)
