"""Federated averaging of the bundle with MONAI's client for federated learning, as NVIDIA FLARE runs it: no scan leaves its site.

    python examples/federated.py OUT SITE_A/datalist.json SITE_B/datalist.json --rounds 2 --frame_size 128 --sequence_length 60

Each site trains the bundle on its own datalist; after each round the weights are averaged by number of training cases, and each
site says how well the average does on its own validation fold, which is no test. OUT/models/model.pt is the average of the last
round. Everything runs in this process; in FLARE each site is a client of its own. Research software, not a medical device.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, WeightType
from monai.fl.utils.exchange_object import ExchangeObject
from torch import Tensor

from monai_chd.workflow.run import bundle_folder

METRICS = ("val_accuracy", "val_macro_f1")


def site(name: str, datalist: Path, out: Path, keys: Mapping[str, Any]) -> MonaiAlgo:
    """A client that trains on one datalist into a folder of its own."""
    places = {
        "datalist": str(datalist.resolve()),
        "output_dir": str((out / name).resolve()),
        "bundle_root": str(bundle_folder()),
    }
    algo = MonaiAlgo(
        bundle_root=str(bundle_folder()),
        send_weight_diff=False,
        train_kwargs={**places, **keys},
        config_evaluate_filename="configs/train.json",  # the validation fold; evaluate.json would load the site's own weights
        eval_kwargs={**places, **keys, "validate#handlers": ["@mistakes"]},  # the others listen to a training
    )
    algo.initialize({ExtraItems.CLIENT_NAME: name})
    return algo


def cases(datalist: Path, fold: int) -> tuple[int, int]:
    """Cases that a site trains on, by which its weights count, and that it validates on."""
    folds = [record["fold"] for record in json.loads(datalist.read_text("utf-8"))["training"]]
    return len(folds) - folds.count(fold), folds.count(fold)


def copied(algo: MonaiAlgo) -> dict[str, Tensor]:
    """The weights of a client, not those that its next training changes."""
    return {name: value.clone() for name, value in algo.get_weights().weights.items()}


def averaged(weights: Sequence[Mapping[str, Tensor]], shares: Sequence[float]) -> dict[str, Tensor]:
    """The average of networks; whole numbers, which count or index, are those of the first."""
    total = sum(shares)
    return {
        name: sum(one[name] * (share / total) for one, share in zip(weights, shares, strict=True))
        if first.is_floating_point()
        else first
        for name, first in weights[0].items()
    }


def federate(out: Path, datalists: Sequence[Path], rounds: int, keys: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Train together; what each site measured of the average after each round."""
    sites = {f"site_{number}": site(f"site_{number}", one, out, keys) for number, one in enumerate(datalists, 1)}
    fold = int(keys.get("fold", 0))
    shares = [cases(one, fold)[0] for one in datalists]
    validation = {name: cases(one, fold)[1] for name, one in zip(sites, datalists, strict=True)}
    common = copied(next(iter(sites.values())))
    rows = []
    for number in range(1, rounds + 1):
        learned = []
        for one in sites.values():
            one.train(ExchangeObject(weights=common, weight_type=WeightType.WEIGHTS))
            learned.append(copied(one))
        common = averaged(learned, shares)
        for name, one in sites.items():
            metrics = one.evaluate(ExchangeObject(weights=common, weight_type=WeightType.WEIGHTS)).metrics
            told = {key: float(metrics[key]) for key in METRICS if key in metrics}
            rows.append({"round": number, "site": name, "validation_cases": validation[name], **told})
            print(rows[-1])
    for one in sites.values():
        one.finalize()
    keep(common, out, list(sites))
    return rows


def keep(weights: Mapping[str, Tensor], out: Path, sites: Sequence[str]) -> None:
    """Write the average as a model that `monai-chd predict SCANS --out OUT` reads, with all that any site trained on."""
    folders = [out / name / "models" for name in sites]
    seen = [json.loads((folder / "trained_on.json").read_text("utf-8")) for folder in folders]
    together = {key: sorted({value for one in seen for value in one[key]}) for key in seen[0]}
    (out / "models").mkdir(exist_ok=True)
    shutil.copy(folders[0] / "settings.json", out / "models")
    (out / "models" / "trained_on.json").write_text(json.dumps(together) + "\n", encoding="utf-8")
    torch.save(dict(weights), out / "models" / "model.pt")
    print(f"the average: {out / 'models' / 'model.pt'}; predict with it: monai-chd predict SCANS --out {out}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("datalists", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--frame_size", type=int, default=128)
    parser.add_argument("--sequence_length", type=int, default=60)
    options = parser.parse_args()
    keys = {"frame_size": options.frame_size, "sequence_length": options.sequence_length}
    federate(options.out, options.datalists, options.rounds, keys)


if __name__ == "__main__":
    main()
