"""The fits of a cross-validation: each is a training and an evaluation of the bundle, finished or not there at all.

Which patients are in which fold is `folds`' part; what the pooled predictions mean is `evaluation`'s.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import multiprocessing
import shutil
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from monai_chd.crossval.design import FOLDS_FILE, Design, fit_datalist, fit_seed
from monai_chd.errors import UserError, UserFileError, user_error
from monai_chd.files import replacing, writable_folder
from monai_chd.labels import CLASSES
from monai_chd.metrics.calibration import read_calibration, scale
from monai_chd.metrics.out_of_fold import RAW
from monai_chd.metrics.predictions import PREDICTION_COLUMNS, read_predictions
from monai_chd.processes import end_with_parent
from monai_chd.versions import software_versions
from monai_chd.workflow.run import quietly, run_bundle
from monai_chd.workflow.settings import LAST, MODEL

DONE = "done.json"
LOG = "log.txt"
COLUMNS = (*PREDICTION_COLUMNS, "repeat", "fold", *(RAW + name for name in CLASSES))
"""Columns of the pooled table."""

FIT_KEYS = ("datalist", "output_dir", "bundle_root", "checkpoint", "fold", "resume", "seed")
"""Config keys that a fit sets by itself."""


def fit_folder(root: Path, repeat: int, fold: int) -> Path:
    """Where the files of one fit are, below the folder of all."""
    return root / f"r{repeat}f{fold}"


def run_fit(
    design: Design,
    folder: Path,
    repeat: int,
    fold: int,
    *,
    labels: Mapping[str, int] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> bool:
    """Train on all but one outer fold and predict that one, with the bundle's own configs, unless it is done already.

    Args:
        design: the cross-validation.
        folder: of this fit; what an interrupted run left there is removed.
        repeat, fold: which.
        labels: other labels than the patients' own, for a control.
        overrides: config keys besides the design's settings, for a control.

    Returns:
        Whether there was something to do.

    Raises:
        ValueError, OSError: the user's mistake that the bundle found, with the fit and its log named.
    """
    datalist = fit_datalist(design, repeat, fold, folder, labels)
    if (folder / DONE).is_file():
        _check_done(folder, datalist)
        return False
    shutil.rmtree(folder, ignore_errors=True)
    writable_folder(folder)
    started = time.perf_counter()
    path = folder / "datalist.json"
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(datalist, indent=1) + "\n")
    settings = {**design.local, **design.settings, **(overrides or {})}
    settings |= {"dataset_dir": str(design.root), "fold": 0, "seed": fit_seed(design, repeat, fold)}
    settings |= {"datalist": str(path.resolve()), "output_dir": str(folder.resolve())}
    with _naming(folder), quietly(folder / LOG):
        run_bundle(["train"], **settings)
        # the features of a frozen encoder are kept, so the patients of the outer fold need not be read again
        run_bundle(["train", "evaluate"], **settings, **{"validate#dataset#cache": "@cache"})
    (folder / "models" / LAST).unlink()  # a finished fit is never resumed, and 25 of them are large
    predictions = folder / "evaluation" / "predictions.csv"
    _check_rows(predictions, read_predictions(predictions), datalist["test"])
    done = {
        "repeat": repeat,
        "fold": fold,
        "seed": settings["seed"],
        "datalist_sha256": _digest(path),
        "predictions_sha256": _digest(predictions),
        "seconds": round(time.perf_counter() - started, 1),
        "versions": software_versions(),
    }
    with replacing(folder / DONE) as temporary:
        temporary.write_text(json.dumps(done, indent=1) + "\n")
    return True


def timed_fit(*args: Any, **options: Any) -> float | None:
    """`run_fit`, and the seconds it took; None when it was done before."""
    started = time.perf_counter()
    return time.perf_counter() - started if run_fit(*args, **options) else None


@contextmanager
def fit_processes(number: int) -> Iterator[ProcessPoolExecutor | None]:
    """Processes of one thread each for fits that run at the same time; None for one, which needs no process of its own.

    When what is done with them fails or is interrupted, they are stopped at once: a fit is finished or not there at all.

    Raises:
        UserError: a process was killed.
    """
    if number < 2:
        yield None
        return
    others = multiprocessing.active_children()  # of a program that calls this as a library
    pool = ProcessPoolExecutor(number, multiprocessing.get_context("spawn"), _alone)
    try:
        yield pool
    except BaseException as error:
        for process in set(multiprocessing.active_children()) - set(others):
            process.terminate()
        pool.shutdown(cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            raise UserError(
                f"one of the {number} processes that ran fits was killed, most often for want of memory; run the same command "
                f"again, it goes on from there"
            ) from None
        raise
    pool.shutdown()


def _alone() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one says what an interruption means
    end_with_parent()
    torch.set_num_threads(1)


def fits_at_once(
    pool: ProcessPoolExecutor, design: Design, root: Path, which: Iterable[tuple[int, int]], **options: Any
) -> Iterator[tuple[tuple[int, int], float | None]]:
    """Run fits in the processes of a pool; yield repeat and fold of each as it ends, and its seconds.

    Args:
        pool: of `fit_processes`.
        design: the cross-validation.
        root: folder of the fits.
        which: repeat and fold of each.
        options: see `run_fit`.
    """
    left = {pool.submit(timed_fit, design, fit_folder(root, *job), *job, **options): job for job in which}
    for future in as_completed(left):
        yield left[future], future.result()


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


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_done(folder: Path) -> dict[str, Any]:
    """What a finished fit noted.

    Raises:
        UserError: it never finished, or its note is damaged.
    """
    try:
        return json.loads((folder / DONE).read_text())  # type: ignore[no-any-return]
    except FileNotFoundError:
        raise UserError(
            f"{folder}: this fit never finished; run the same `monai-chd crossval` command again, it goes on from there"
        ) from None
    except ValueError:
        raise UserError(f"{folder / DONE}: damaged; remove the folder and run the same command again") from None


def _check_done(folder: Path, datalist: Mapping[str, Any]) -> None:
    """Refuse a fit whose datalist or predictions are not those it finished with."""
    done, mend = read_done(folder), "remove its folder and run the same command again"
    for name, key in (("datalist.json", "datalist_sha256"), ("evaluation/predictions.csv", "predictions_sha256")):
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path}: missing, though the fit was finished; {mend}")
        if _digest(path) != done.get(key):
            raise UserError(f"{path}: changed since the fit was finished; {mend}")
    saved = json.loads((folder / "datalist.json").read_text())
    if {k: v for k, v in saved.items() if k != "root"} != json.loads(
        json.dumps({k: v for k, v in datalist.items() if k != "root"})
    ):
        raise UserError(f"{folder / 'datalist.json'}: of another cross-validation; {mend}")


def _check_rows(path: Path, table: pd.DataFrame, records: Sequence[Mapping[str, Any]]) -> None:
    """Refuse predictions that are not of the records of the outer fold."""
    expected = {record["image"]: (record["patient"], CLASSES[record["label"]]) for record in records}
    came = {row.image: (row.patient, row.label) for row in table.itertuples()}
    if expected != came:
        wrong = sorted(image for image in {*expected, *came} if expected.get(str(image)) != came.get(image))
        raise UserError(
            f"{path}: predictions of another datalist: {len(wrong)} of its scans, patients or classes are not those of the "
            f"fold ({', '.join(map(str, wrong[:3]))}); remove the folder of this fit and run the same command again"
        )


def pooled(design: Design, root: Path, repeats: Iterable[int], labels: Mapping[str, int] | None = None) -> pd.DataFrame:
    """Out-of-fold predictions of all fits below a folder.

    Args:
        design: the cross-validation.
        root: folder of the fits.
        repeats: which.
        labels: of a control, as given to its fits.

    Returns:
        A frame of `COLUMNS`, types as of `predictions.read_predictions`, sorted by repeat, patient and image.

    Raises:
        UserError: a fit that never finished, was changed, or predicts another datalist; probabilities that are none.
    """
    tables = []
    for repeat in repeats:
        for fold in range(design.folds):
            folder = fit_folder(root, repeat, fold)
            datalist = fit_datalist(design, repeat, fold, folder, labels)
            _check_done(folder, datalist)
            path = folder / "evaluation" / "predictions.csv"
            table = read_predictions(path)
            _check_rows(path, table, datalist["test"])
            table[["repeat", "fold"]] = repeat, fold
            temperature = read_calibration(folder / "models" / MODEL).temperature
            table[[RAW + name for name in CLASSES]] = scale(table[list(CLASSES)].to_numpy(), 1 / temperature)
            tables.append(table)
    return pd.concat(tables).sort_values(["repeat", "patient", "image"], ignore_index=True)[list(COLUMNS)]


def write_pooled(table: pd.DataFrame, path: Path) -> Path:
    """Write the pooled table; reading it gives the same numbers to the last bit."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    scores = {*CLASSES, *(RAW + name for name in CLASSES)}
    for row in table.to_dict("records"):
        writer.writerow([_cell(row[name], name in scores) for name in COLUMNS])
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8", newline="")
    return path


def _cell(value: Any, score: bool) -> str:
    if score:
        return "" if np.isnan(value) else np.format_float_positional(value, unique=True, min_digits=6)
    return str(value).lower() if isinstance(value, (bool, np.bool_)) else str(value)


def read_pooled(folder: str | Path) -> pd.DataFrame:
    """The pooled predictions of a finished cross-validation.

    Raises:
        UserFileError: no cross-validation there.
        UserError: a fit that never finished, or no such table.
    """
    folder = Path(folder)
    if not (folder / FOLDS_FILE).is_file():
        raise UserFileError(f"{folder / FOLDS_FILE}: no cross-validation there; make one with `monai-chd crossval`")
    content = json.loads((folder / FOLDS_FILE).read_text())
    for repeat in range(content["repeats"]):
        for fold in range(content["folds"]):
            read_done(fit_folder(folder / "fits", repeat, fold))
    path = folder / "predictions.csv"
    if not path.is_file():
        raise UserFileError(f"{path}: not written yet; run `monai-chd crossval` there to its end")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if list(table.columns) != list(COLUMNS):
        raise UserError(f"{path}: expected the columns {', '.join(COLUMNS)}, came {', '.join(table.columns)}")
    for name in (*CLASSES, *(RAW + name for name in CLASSES)):
        table[name] = [float(cell) if cell else np.nan for cell in table[name]]
    table["abstain"] = table["abstain"] == "true"
    table[["repeat", "fold"]] = table[["repeat", "fold"]].astype(int)
    return table


def history(folder: Path) -> list[dict[str, float]]:
    """Learning curves of a fit, an entry an epoch; `val_…` chose the model and are no test results."""
    with (folder / "learning_curves.csv").open(newline="") as file:
        return [
            {key: int(value) if key == "epoch" else float(value) for key, value in row.items() if value}
            for row in csv.DictReader(file)
        ]
