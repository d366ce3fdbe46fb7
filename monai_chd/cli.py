"""The `monai-chd` command: one sub-command a job, each one function call; training, evaluation and inference run the bundle.

What can be said to it is `arguments`'.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai_chd.arguments import PHANTOM_OPTIONS, PHANTOM_SIZES, command_parser, config_keys, split_words
from monai_chd.environment import prepare_process
from monai_chd.errors import TRACEBACK_VARIABLE, UserError, UserFileError, user_error
from monai_chd.files import leaving_no_empty_folders


def _checked(options: argparse.Namespace, configs: Sequence[str], given: Sequence[str]) -> dict[str, Any]:
    """The config keys of a command line, refused when a config does not know them or their values cannot be."""
    from monai_chd.workflow.begin import check_values
    from monai_chd.workflow.run import check_keys, config_content

    overrides = config_keys(options.pairs)
    if preset := getattr(options, "preset", None):
        overrides = {**config_content(f"preset_{preset}"), **overrides}
    check_keys(configs, overrides, given)
    check_values(overrides)
    return overrides


def _phantom(options: argparse.Namespace) -> None:
    from monai_chd.phantom.cohort import write_cohort
    from monai_chd.report.contact_sheet import cohort_contact_sheet

    if options.like_imagechd:
        return _phantom_imagechd(options)
    if options.archive:
        raise UserError("--archive: only ImageCHD comes as a split archive; add --like-imagechd, or leave it out")
    workbook = write_cohort(
        options.cohort,
        patients=options.patients,
        size=getattr(options, "size", PHANTOM_SIZES[0]),
        slices=tuple(options.slices),
        difficulty=options.difficulty,
        lesions=options.lesions,
        labels=getattr(options, "labels", "clean"),
        seed=options.seed,
    )
    sheet = Path(options.cohort) / "phantom_contact_sheet.png"
    cohort_contact_sheet(Path(options.cohort), sheet)
    print(f"scans, label maps and workbook: {workbook.parent}\nnext: monai-chd prepare {options.cohort} --out WORK")


def _phantom_imagechd(options: argparse.Namespace) -> None:
    from monai_chd.phantom.imagechd import write_imagechd

    if given := [f"--{name}" for name, default in PHANTOM_OPTIONS.items() if getattr(options, name) != default]:
        raise UserError(f"{', '.join(given)}: --like-imagechd has ImageCHD's own patients and slices; leave it out")
    size = getattr(options, "size", PHANTOM_SIZES[1])
    labels = getattr(options, "labels", "rough")
    workbook = write_imagechd(options.cohort, size=size, seed=options.seed, archive=options.archive, labels=labels)
    print(f"scans, label maps and both workbooks: {workbook.parent}")
    if options.archive:
        print(f"split archive: {workbook.parent / 'archive'}")
    print(f"next: monai-chd prepare {options.cohort} --out WORK")


def _prepare(options: argparse.Namespace) -> None:
    from monai_chd.archives.unpack import unpack
    from monai_chd.cohort.datalist import Choices, prepare
    from monai_chd.cohort.overview import report

    choices = Choices(
        table=options.table,
        layout=options.cohort,
        rule=getattr(options, "rule", None),
        normal=options.normal,
        folds=options.folds,
        test_fraction=options.test_fraction,
        seed=options.seed,
        hu_offset=options.hu_offset,
        confounders=options.confounders,
        skip_bad=options.skip_bad,
        phase=options.phase,
        tilt=options.tilt,
    )
    datalist = prepare(unpack(options.source, options.extract_to), options.out, choices, progress=True)
    print(report(datalist, Path(options.out)))


def _audit(options: argparse.Namespace) -> int:
    from monai_chd.audit.leakage import audit, exit_code, nothing_compared, write_audit
    from monai_chd.audit.text import audit_text

    trained = _trained_on(options.weights)
    result = audit(options.datalist, dataset_dir=options.dataset_dir, against=options.against, trained=trained)
    path = Path(options.out) if options.out else Path(options.datalist).with_name("audit.json")
    write_audit(result, path)
    print(f"{audit_text(result)}\naudit: {path}")
    if error := nothing_compared(result):
        print(f"error: {error}", file=sys.stderr)
    return exit_code(result)


def _trained_on(places: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """What weights were trained on, by their path, of files or of all that lie below folders."""
    from monai_chd.workflow.settings import MODEL, read_trained_on

    found = {}
    for place in map(Path, places):
        weights = sorted(place.rglob(MODEL)) if place.is_dir() else [place]
        for path in weights:
            if (seen := read_trained_on(path)) is None or not path.is_file():
                raise UserFileError(f"{path}: no weights with a note of what they were trained on beside them")
            found[str(path)] = seen
        if not weights:
            raise UserFileError(f"{place}: no {MODEL} in this folder; name the output folder of a training, or weights")
    return found


def _train(options: argparse.Namespace) -> None:
    from monai_chd.workflow.run import run_bundle
    from monai_chd.workflow.settings import LAST, resume_settings
    from monai_chd.workflow.structures import prepare_structures

    overrides = _checked(options, ["train"], ("datalist", "output_dir"))
    if overrides.get("resume") is True:  # who resumes means the same training
        overrides = resume_settings(Path(options.out, "models", LAST)) | overrides
    prepare_structures(options.datalist, options.out, overrides)
    places = {"datalist": _absolute(options.datalist), "output_dir": _absolute(options.out)}
    run_bundle(["train"], **_tracking(options), **places, **overrides)


def _train_structures(options: argparse.Namespace) -> None:
    from monai_chd.workflow.settings import LAST, STRUCTURES_FOLDER, resume_settings
    from monai_chd.workflow.structures import train_structures

    overrides = _checked(options, ["train_structures"], ("datalist", "output_dir"))
    folder = Path(options.out, STRUCTURES_FOLDER)
    if overrides.get("resume") is True:
        overrides = resume_settings(folder / "models" / LAST) | overrides
    train_structures(options.datalist, folder, overrides)


def _evaluate(options: argparse.Namespace) -> None:
    from monai_chd.workflow.run import run_bundle

    configs = ["train", "evaluate"]
    overrides = _checked(options, configs, ("datalist", "output_dir"))
    places = {"datalist": _absolute(options.datalist), "output_dir": _absolute(options.out)}
    run_bundle(configs, **_tracking(options), **places, **overrides)


def _tracking(options: argparse.Namespace) -> dict[str, Any]:
    return {} if options.tracking is None else {"tracking": options.tracking}


def _predict(options: argparse.Namespace) -> None:
    from monai_chd.workflow.run import run_bundle

    overrides = _checked(options, ["inference"], ("dataset_dir", "output_dir", "dicom_out")) | _dicom_out(options)
    run_bundle(["inference"], dataset_dir=_absolute(options.source), output_dir=_absolute(options.out), **overrides)


def _dicom_out(options: argparse.Namespace) -> dict[str, Any]:
    return {} if options.dicom_out is None else {"dicom_out": _absolute(options.dicom_out)}


def _segment(options: argparse.Namespace) -> None:
    from monai_chd.dicom.private import private_folder
    from monai_chd.report.contact_sheet import structure_contact_sheet
    from monai_chd.workflow.run import run_bundle

    overrides = _checked(options, ["segment"], ("dataset_dir", "output_dir", "dicom_out")) | _dicom_out(options)
    source, folder = Path(options.source).resolve(), Path(options.out).resolve() / "segmentation"
    try:
        run_bundle(["segment"], dataset_dir=str(source), output_dir=_absolute(options.out), **overrides)
    finally:
        if pairs := _segmented(source, folder, private_folder(options.out)):
            print(f"contact sheet: {structure_contact_sheet(pairs, folder / 'contact_sheet.png')}")


def _segmented(source: Path, folder: Path, private: Path) -> list[tuple[str, Path, Path]]:
    """Scans with the label maps that they have been given: name, scan, label map."""
    import csv

    from monai_chd.dicom.private import is_series_file

    if not (folder / "structures.csv").is_file():
        return []
    with (folder / "structures.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["label_map"]]
    root = source.parent if source.is_file() else source
    return [
        (
            row["image"].replace("_image.nii.gz", ""),
            (private if is_series_file(row["image"]) else root) / row["image"],
            folder / row["label_map"],
        )
        for row in rows
    ]


def _label(options: argparse.Namespace) -> None:
    from monai_chd.hosts.label_server import serve

    serve(options.source, options.out, options.host, options.port)


def _export(options: argparse.Namespace) -> None:
    from monai_chd.workflow.export import export

    overrides = _checked(options, ["inference"], ("dataset_dir", "output_dir", "engine"))
    print(export(_absolute(options.out), _absolute(options.scans), overrides).text())


def _pack(options: argparse.Namespace) -> None:
    from monai_chd.workflow.zoo_bundle import pack

    urls = {"huggingface_url": options.huggingface_url, "large_files_url": options.large_files_url}
    pack(_absolute(options.out), _absolute(options.to), **urls)


def _cache(options: argparse.Namespace) -> None:
    from monai_chd.workflow.run import Expression, configured

    overrides = _checked(options, ["train"], ("datalist", "cache", "cache_dir"))
    overrides |= {"datalist": _absolute(options.datalist), "cache": options.format, "cache_dir": _absolute(options.out)}
    overrides["train#dataset#data"] = Expression("$sum(@cases.values(), [])")
    (dataset,) = configured(["train"], overrides, ["train#dataset"])
    dataset.fill()
    print(f"{'features' if options.format == 'features' else 'frames'}: {options.out}")


def _crossval(options: argparse.Namespace) -> None:
    from monai_chd.crossval.config_keys import FIT_KEYS, fit_settings
    from monai_chd.crossval.design import new_design
    from monai_chd.crossval.run import crossval, summary_text

    design = new_design(
        options.datalist,
        folds=options.folds,
        repeats=1 if options.quick else options.repeats,
        seed=options.seed,
        settings=fit_settings(_checked(options, ["train"], FIT_KEYS), options.out),
    )
    command = shlex.join(["monai-chd", *options.words])
    report = crossval(design, options.out, against=options.against, controls=options.controls, command=command)
    print(summary_text(report, options.out))


def _absolute(path: str) -> str:
    return str(Path(path).resolve())


COMMANDS = {
    "phantom": _phantom,
    "prepare": _prepare,
    "audit": _audit,
    "train": _train,
    "train-structures": _train_structures,
    "evaluate": _evaluate,
    "predict": _predict,
    "segment": _segment,
    "label": _label,
    "export": _export,
    "pack": _pack,
    "crossval": _crossval,
    "cache": _cache,
}


@contextmanager
def _log_on_screen() -> Iterator[None]:
    """What the package logs is printed as it is, as the bundle's logging.conf has it for a run."""
    logger = logging.getLogger("monai_chd")
    before = logger.handlers[:], logger.level, logger.propagate
    logger.handlers[:] = [logging.StreamHandler(sys.stdout)]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.handlers[:], level, logger.propagate = before
        logger.setLevel(level)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code, 1 (2 for `audit`) with one line on stderr for a mistake of the user."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    own, pairs = split_words(words)
    options = command_parser().parse_args(own)
    options.words, options.pairs = words, pairs
    prepare_process()
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"monai\.")
    out = options.cohort if options.command == "phantom" else options.out
    try:
        with _log_on_screen(), leaving_no_empty_folders(out):
            code = int(COMMANDS[options.command](options) or 0)
            sys.stdout.flush()  # a full disk behind it is found now, not when Python ends
            return code
    except (
        BrokenPipeError
    ):  # whoever read the output has gone, as `| head` does; Python would say so once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        mistake = user_error(error)
        if mistake is None or os.environ.get(TRACEBACK_VARIABLE):
            raise
        print(f"error: {mistake}", file=sys.stderr)
        return int(getattr(options, "failure", 1))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
