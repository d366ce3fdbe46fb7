"""The `monai-chd` command: one sub-command a job, each one function call; training, evaluation and inference run the bundle."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import sysconfig
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_chd import __version__
from monai_chd.errors import TRACEBACK_VARIABLE, user_error

BUNDLE_COMMANDS = ("train", "evaluate", "predict", "cache")
"""Commands that take any key of the bundle's config as --key value."""

OWN_OPTIONS = ("--out", "--format", "--help")
"""What is an option of these commands themselves."""

EPILOG = "Research software, not a medical device."


def bundle_folder() -> Path:
    """The MONAI bundle: beside the package in a checkout, below the prefix's `share/` when installed.

    Raises:
        FileNotFoundError: neither is there.
    """
    places = [
        Path(__file__).resolve().parent.parent / "bundle",
        Path(sysconfig.get_path("data")) / "share" / "monai_chd" / "bundle",
    ]
    for place in places:
        if (place / "configs" / "train.json").is_file():
            return place
    raise FileNotFoundError(f"the bundle's configs are not at {' or '.join(map(str, places))}; install monai_chd again")


def run_bundle(configs: Sequence[str | Path], **overrides: Any) -> None:
    """Run the bundle as `python -m monai.bundle run` does.

    Args:
        configs: names of configs of the bundle ("train") or paths of files that override them.
        overrides: top-level config keys.
    """
    from monai.bundle import run

    folder = bundle_folder()
    files = [str(folder / "configs" / f"{c}.json") if isinstance(c, str) else str(c) for c in configs]
    with warnings.catch_warnings():
        # MONAI warns that a config can run code; these are the package's own
        warnings.filterwarnings("ignore", message="parsing config_file", category=UserWarning)
        run(config_file=files, bundle_root=str(folder), **overrides)


def _overrides(words: Sequence[str]) -> dict[str, Any]:
    """`--key value` pairs meant for the config, read as JSON where they are JSON."""
    overrides: dict[str, Any] = {}
    queue = list(words)
    while queue:
        word = queue.pop(0)
        match = re.fullmatch(r"--([\w#:.]+)(?:=(.*))?", word, flags=re.DOTALL)
        if not match or (match[2] is None and (not queue or queue[0].startswith("--"))):
            raise ValueError(f"{word}: expected config keys as --key value, for example --max_epochs 5")
        text = match[2] if match[2] is not None else queue.pop(0)
        try:
            overrides[match[1]] = json.loads(text)
        except json.JSONDecodeError:
            overrides[match[1]] = {"true": True, "false": False, "none": None}.get(text.lower(), text)
    return overrides


def _split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command line as what argparse knows, and the pairs meant for the config, wherever they stand."""
    if not words or words[0] not in BUNDLE_COMMANDS:
        return list(words), []
    own: list[str] = []
    pairs: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if not word.startswith("--") or word.split("=")[0] in OWN_OPTIONS:
            own.append(word)
            continue
        pairs.append(word)
        if "=" not in word and queue and not queue[0].startswith("--"):
            pairs.append(queue.pop(0))
    return own, pairs


def _known_keys(configs: Sequence[str], overrides: dict[str, Any], given: Sequence[str]) -> dict[str, Any]:
    """Refuse a config key that does not exist, which MONAI would take in silence, or that the command itself gives."""
    twice = [key for key in overrides if key in (*given, "bundle_root")]
    if twice:
        raise ValueError(f"config key {', '.join(twice)}: given by the command's own arguments; leave it out")
    known: set[str] = set()
    for name in configs:
        known |= set(json.loads((bundle_folder() / "configs" / f"{name}.json").read_text()))
    unknown = [key for key in overrides if re.split(r"[#:]", key)[0] not in known]
    if unknown:
        raise ValueError(f"unknown config key {', '.join(unknown)}; known: {', '.join(sorted(known - {'imports'}))}")
    return overrides


def _phantom(options: argparse.Namespace) -> None:
    from monai_chd.contact_sheet import cohort_contact_sheet
    from monai_chd.phantom import write_cohort

    workbook = write_cohort(
        options.cohort,
        patients=options.patients,
        size=options.size,
        slices=tuple(options.slices),
        difficulty=options.difficulty,
        lesions=options.lesions,
        seed=options.seed,
    )
    sheet = Path(options.cohort) / "phantom_contact_sheet.png"
    cohort_contact_sheet(Path(options.cohort), sheet)
    print(f"scans, label maps and workbook: {workbook.parent}\nnext: monai-chd prepare {options.cohort} --out WORK")


def _prepare(options: argparse.Namespace) -> None:
    from monai_chd.datalist import prepare, report

    datalist = prepare(
        options.source,
        options.out,
        table=options.table,
        folds=options.folds,
        test_fraction=options.test_fraction,
        seed=options.seed,
        hu_offset=options.hu_offset,
        skip_bad=options.skip_bad,
        progress=True,
    )
    print(report(datalist, Path(options.out)))


def _train(options: argparse.Namespace) -> None:
    overrides = _known_keys(["train"], _overrides(options.overrides), ("datalist", "output_dir"))
    run_bundle(["train"], datalist=_absolute(options.datalist), output_dir=_absolute(options.out), **overrides)


def _settings_file(out: str, overrides: dict[str, Any]) -> list[Path]:
    """The settings that the model in `out`, or the one the bundle ships, was trained with, unless weights are named."""
    from monai_chd.settings import SETTINGS, find_checkpoint

    path = Path(overrides.get("checkpoint") or find_checkpoint(out, bundle_folder())).with_name(SETTINGS)
    return [path.resolve()] if path.is_file() else []


def _evaluate(options: argparse.Namespace) -> None:
    overrides = _known_keys(["train", "evaluate"], _overrides(options.overrides), ("datalist", "output_dir"))
    run_bundle(
        ["train", "evaluate", *_settings_file(options.out, overrides)],
        datalist=_absolute(options.datalist),
        output_dir=_absolute(options.out),
        **overrides,
    )


def _predict(options: argparse.Namespace) -> None:
    overrides = _known_keys(["inference"], _overrides(options.overrides), ("dataset_dir", "output_dir"))
    run_bundle(
        ["inference", *_settings_file(options.out, overrides)],
        dataset_dir=_absolute(options.source),
        output_dir=_absolute(options.out),
        **overrides,
    )


def _cache(options: argparse.Namespace) -> None:
    from monai.bundle import ConfigParser

    from monai_chd.dataset import FrameDataset

    overrides = _known_keys(["train"], _overrides(options.overrides), ("datalist",))
    parser = ConfigParser()
    parser.read_config(str(bundle_folder() / "configs" / "train.json"))
    parser.update({"datalist": _absolute(options.datalist), **overrides})
    cases = parser.get_parsed_content("cases")
    dataset = FrameDataset(
        [case for part in cases.values() for case in part],
        parser.get_parsed_content("train#preprocessing"),
        cache=options.format,
        cache_dir=options.out,
    )
    dataset.fill()
    print(f"frames: {options.out}")


def _absolute(path: str) -> str:
    return str(Path(path).resolve())


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="monai-chd",
        description="Congenital heart disease from cardiac CT: a folder of scans and a table in, a CNN-LSTM with an honest "
        "evaluation out.",
        epilog=EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"monai_chd {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_phantom(commands)
    _add_prepare(commands)
    _add_bundle_commands(commands)
    return parser


def _add(commands: Any, name: str, function: Any, text: str, more: str = "") -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}. {more}",
        epilog=EPILOG,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    command.set_defaults(function=function)
    return command


def _add_phantom(commands: Any) -> None:
    command = _add(
        commands,
        "phantom",
        _phantom,
        "make a synthetic cohort in ImageCHD's layout",
        "Analytic hearts with congenital lesions, label maps and workbook; the same seed gives the same bytes.",
    )
    command.add_argument("cohort", metavar="COHORT", help="folder to make")
    command.add_argument("--patients", type=int, default=60, help="number of patients, a third per class")
    command.add_argument("--size", type=int, default=128, help="pixels of a slice, in each direction")
    command.add_argument(
        "--slices", type=int, nargs=2, default=[40, 56], metavar=("MIN", "MAX"), help="slices of a volume"
    )
    command.add_argument("--difficulty", choices=("plain", "realistic"), default="plain", help="how much hearts vary")
    command.add_argument(
        "--lesions",
        nargs="+",
        metavar="FLAGS",
        help="flags to use instead of the usual ones, joined by +, e.g. DORV+VSD DAA none",
    )
    command.add_argument("--seed", type=int, default=42, help="seed of everything random")


def _add_prepare(commands: Any) -> None:
    command = _add(
        commands,
        "prepare",
        _prepare,
        "check scans and table, draw the split, write datalist.json and excluded.csv",
        "The table is ImageCHD's workbook, or a .csv/.xlsx with an id or path column and a class column.",
    )
    command.add_argument(
        "source", metavar="COHORT", help="folder with the scans, and the table unless --table names one"
    )
    command.add_argument("--out", required=True, metavar="WORK", help="folder to write to")
    command.add_argument("--table", help="table of diagnoses, when it is not in COHORT")
    command.add_argument("--folds", type=int, default=5, help="cross-validation folds of the training part")
    command.add_argument("--test-fraction", type=float, default=0.2, help="share of patients held out for the test")
    command.add_argument("--seed", type=int, default=42, help="seed of the split")
    command.add_argument("--hu-offset", type=float, help="HU = value + N; found for each file when not given")
    command.add_argument("--skip-bad", action="store_true", help="leave bad rows and scans out instead of stopping")


def _add_bundle_commands(commands: Any) -> None:
    keys = "Every key of the bundle's config can be set as --key value, e.g. --frame_size 224 --max_epochs 5."
    train = _add(commands, "train", _train, "train a model (bundle config train.json)", keys)
    train.add_argument("datalist", metavar="WORK/datalist.json")
    train.add_argument("--out", required=True, metavar="OUT", help="folder for model, curves and logs")
    evaluate = _add(
        commands,
        "evaluate",
        _evaluate,
        "evaluate the model in OUT on the held-out test part (train.json + evaluate.json)",
        f"The settings of the training are taken from OUT. {keys}",
    )
    evaluate.add_argument("datalist", metavar="WORK/datalist.json")
    evaluate.add_argument(
        "--out", required=True, metavar="OUT", help="folder of the training; results go to OUT/evaluation"
    )
    predict = _add(
        commands,
        "predict",
        _predict,
        "predict a NIfTI file or a folder of them with the model in OUT (inference.json)",
        f"No labels needed. The settings of the training are taken from OUT. {keys}",
    )
    predict.add_argument("source", metavar="SCANS", help="NIfTI file or folder")
    predict.add_argument(
        "--out", required=True, metavar="OUT", help="folder of the training; results go to OUT/inference"
    )
    cache = _add(
        commands,
        "cache",
        _cache,
        "write the frames of a datalist to disk",
        f"`jpg`: one 8-bit JPG a frame, a folder a patient, lossy; train on them with --cache jpg --cache_dir FOLDER. {keys}",
    )
    cache.add_argument("datalist", metavar="WORK/datalist.json")
    cache.add_argument("--out", required=True, metavar="FOLDER", help="folder to write to")
    cache.add_argument("--format", choices=("jpg",), default="jpg", help="kind of frames")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code, 1 with one line on stderr for a mistake of the user."""
    parser = _arguments()
    words, overrides = _split_words(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(words)
    options.overrides = overrides
    warnings.filterwarnings("ignore", category=FutureWarning, module="monai")
    try:
        options.function(options)
    except Exception as error:
        mistake = user_error(error)
        if mistake is None or os.environ.get(TRACEBACK_VARIABLE):
            raise
        print(f"error: {mistake}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
