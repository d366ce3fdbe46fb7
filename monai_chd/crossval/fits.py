"""One fit of a cross-validation: a training and an evaluation of the bundle, finished or not there at all.

Which patients it trains on is `design`'s part, which fits run at the same time `fit_processes`', the table of all their
predictions `out_of_fold_table`'s.
"""

from __future__ import annotations

import csv
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from monai_chd.crossval.design import Design, fit_datalist
from monai_chd.crossval.structures import structure_weights
from monai_chd.errors import UserError, user_error
from monai_chd.files import escaped, sha256_of, writable_folder, write_text
from monai_chd.labels import CLASSES
from monai_chd.metrics.predictions import read_predictions
from monai_chd.schemas import read_checked
from monai_chd.versions import software_versions
from monai_chd.wording import some_of
from monai_chd.workflow.run import Expression, quietly, run_bundle
from monai_chd.workflow.settings import LAST, MODEL

FITS_FOLDER = "fits"
"""Below the folder of a cross-validation: its fits, but those of controls."""

DATALIST = "datalist.json"
DONE = "done.json"
DONE_SCHEMA = Path(__file__).with_name("done.schema.json")
LOG = "log.txt"
PREDICTIONS = "evaluation/predictions.csv"


def fit_folder(fits: Path, repeat: int, fold: int) -> Path:
    """Where the files of one fit are, below the folder of all."""
    return fits / f"r{repeat}f{fold}"


def model_path(folder: Path) -> Path:
    """The weights of a fit."""
    return folder / "models" / MODEL


def run_fit(
    design: Design,
    folder: Path,
    repeat: int,
    fold: int,
    *,
    labels: Mapping[str, int] | None = None,
    extra: Mapping[str, Any] | None = None,
    structures: Path | None = None,
) -> float | None:
    """Train on all but one outer fold and predict that one, with the bundle's own configs, unless it is done already.

    Args:
        design: the cross-validation.
        folder: of this fit; what an interrupted run left there is removed.
        repeat, fold: which.
        labels: other labels than the patients' own, for a control.
        extra: config keys besides the design's, for a control.
        structures: folder of the structure networks, see `structures.train_structures`; None: the encoder needs none.

    Returns:
        Seconds that it took; None when it was done before.

    Raises:
        UserError: the user's mistake that the bundle found, with the fit and its log named; or a fit done before whose files
            are not those that it finished with.
    """
    datalist = fit_datalist(design, repeat, fold, folder, labels)
    if (folder / DONE).is_file():
        check_done(folder, datalist)
        return None
    started = time.perf_counter()
    shutil.rmtree(folder, ignore_errors=True)
    writable_folder(folder)
    path = folder / DATALIST
    write_text(path, json.dumps(datalist, indent=1) + "\n")
    overrides = {**design.overrides, **(extra or {})}
    overrides |= {"dataset_dir": str(design.root), "fold": 0, "seed": design.fit_seed(repeat, fold)}
    overrides |= {"datalist": str(path.resolve()), "output_dir": str(folder.resolve())}
    if structures is not None:
        overrides["structures"] = str(structure_weights(structures, repeat, fold))
    with _naming(folder), quietly(folder / LOG):
        run_bundle(["train"], **overrides)
        # the features of a frozen encoder are kept, so the patients of the outer fold need not be read again
        overrides.pop("structures", None)  # they are in the model
        run_bundle(["train", "evaluate"], **overrides, **{"validate#dataset#cache": Expression("@cache")})
    model_path(folder).with_name(LAST).unlink()  # a finished fit is never resumed, and 25 of them are large
    check_rows(folder / PREDICTIONS, read_predictions(folder / PREDICTIONS), datalist["test"])
    seconds = time.perf_counter() - started
    done = {
        "repeat": repeat,
        "fold": fold,
        "seed": overrides["seed"],
        "datalist_sha256": sha256_of(path),
        "predictions_sha256": sha256_of(folder / PREDICTIONS),
        "seconds": round(seconds, 1),
        "versions": software_versions(),
    }
    write_text(folder / DONE, json.dumps(done, indent=1) + "\n")
    return seconds


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Say of the user's mistake in which fit it was found."""
    try:
        yield
    except Exception as error:
        mistake = user_error(error)
        if mistake is None:
            raise
        raise UserError(f"fit {folder.name}: {mistake} (log: {folder / LOG})") from None


def read_done(folder: Path) -> dict[str, Any]:
    """What a finished fit noted.

    Raises:
        UserError: it never finished, or its note is damaged.
    """
    if not (folder / DONE).is_file():
        raise UserError(
            f"{folder}: this fit never finished; run the same `monai-chd crossval` command again, it goes on from there"
        )
    mend = "; remove the folder and run the same command again"
    return read_checked(folder / DONE, DONE_SCHEMA, "the note of a finished fit", mend)  # type: ignore[no-any-return]


def check_done(folder: Path, datalist: Mapping[str, Any]) -> None:
    """Refuse a fit that never finished, or whose datalist or predictions are not those it finished with.

    Args:
        folder: of the fit.
        datalist: that it should have, see `design.fit_datalist`.

    Raises:
        UserError: see above; the file is named.
    """
    done, mend = read_done(folder), "remove its folder and run the same command again"
    for name, key in ((DATALIST, "datalist_sha256"), (PREDICTIONS, "predictions_sha256")):
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path}: missing, though the fit was finished; {mend}")
        if sha256_of(path) != done.get(key):
            raise UserError(f"{path}: changed since the fit was finished; {mend}")
    saved = json.loads((folder / DATALIST).read_text())
    if {k: v for k, v in saved.items() if k != "root"} != json.loads(
        json.dumps({k: v for k, v in datalist.items() if k != "root"})
    ):
        raise UserError(f"{folder / DATALIST}: of another cross-validation; {mend}")


def check_rows(path: Path, table: pd.DataFrame, records: Sequence[Mapping[str, Any]]) -> None:
    """Refuse predictions that are not of the records of the outer fold.

    Args:
        path: of the predictions.
        table: what stands there.
        records: of the outer fold.

    Raises:
        UserError: says how many scans, patients or classes are others, and names some.
    """
    expected = {escaped(record["image"]): (record["patient"], CLASSES[record["label"]]) for record in records}
    came = {row.image: (row.patient, row.label) for row in table.itertuples()}
    if expected != came:
        wrong = sorted(image for image in {*expected, *came} if expected.get(str(image)) != came.get(image))
        raise UserError(
            f"{path}: predictions of another datalist: {len(wrong)} of its scans, patients or classes are not those of the "
            f"fold ({some_of(wrong)}); remove the folder of this fit and run the same command again"
        )


def learning_curves(folder: Path) -> list[dict[str, float]]:
    """Learning curves of a fit, an entry an epoch; `val_…` chose the model and are no test results."""
    path = folder / "learning_curves.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                {key: int(value) if key == "epoch" else float(value) for key, value in row.items() if value}
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise UserError(
            f"{path}: no learning curves ({error}); remove its folder and run the same command again"
        ) from None
