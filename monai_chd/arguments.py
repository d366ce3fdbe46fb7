"""What the `monai-chd` command line can say: its commands, their arguments and help, and keys of the bundle's config.

What a command does is `cli`'s.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from typing import Any

from monai_chd import __version__
from monai_chd.errors import UserError

BUNDLE_COMMANDS = ("train", "train-structures", "evaluate", "predict", "segment", "export", "cache", "crossval")
"""Commands that take any key of the bundle's config as --key value."""

OWN_OPTIONS = ("--out", "--format", "--scans", "--help")
"""What is an option of these commands themselves."""

CROSSVAL_OPTIONS = ("--quick", "--folds", "--repeats", "--seed", "--against", "--no-controls")
"""The same of cross-validation alone; elsewhere --seed is a key of the config."""

PRESETS = ("reference", "fast", "best")
"""Named settings of a training, `bundle/configs/preset_NAME.json`."""

PHANTOM_SIZES = 128, 64
"""Pixels of a slice unless told otherwise: of a cohort, and with --like-imagechd."""

PHANTOM_OPTIONS = {"patients": 60, "slices": [40, 56], "difficulty": "plain", "lesions": None}
"""Defaults of what --like-imagechd leaves no choice of."""

EPILOG = "Research software, not a medical device."

KEYS = (
    "Keys of the bundle's config are set as --key value, e.g. --frame_size 224 --window '[-200, 900]'; the README's table "
    "explains them: frame_size, sequence_length, sampling, window, encoder, encoder_precision, projection, "
    "hidden_size, num_layers, "
    "bidirectional, pooling, learning_rate, lr_decay, batch_size, max_epochs, early_stop_patience, fold, seed, cache, "
    "cache_dir, resume, amp, num_workers, reader, hu_offset, cine_slice, dataset_dir, checkpoint."
)


def config_keys(words: Sequence[str]) -> dict[str, Any]:
    """`--key value` pairs meant for the config, read as JSON where they are JSON."""
    overrides: dict[str, Any] = {}
    queue = list(words)
    while queue:
        word = queue.pop(0)
        match = re.fullmatch(r"--([\w#:.-]+)(?:=(.*))?", word, flags=re.DOTALL)
        if not match or (match[2] is None and (not queue or queue[0].startswith("--"))):
            raise UserError(
                f"{word}: expected config keys as --key value, for example --max_epochs 5 or --window '[-200, 900]'"
            )
        key, text = match[1].replace("-", "_"), match[2] if match[2] is not None else queue.pop(0)
        try:
            overrides[key] = json.loads(text)
        except json.JSONDecodeError:
            overrides[key] = {"true": True, "false": False, "none": None}.get(text.lower(), text)
    return overrides


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command line as what argparse knows, and the pairs meant for the config, wherever they stand."""
    if not words or words[0] not in BUNDLE_COMMANDS:
        return list(words), []
    options = OWN_OPTIONS + (CROSSVAL_OPTIONS if words[0] == "crossval" else ())
    options += ("--preset",) if words[0] in ("train", "crossval") else ()
    options += ("--tracking",) if words[0] in ("train", "evaluate") else ()
    options += ("--dicom-out",) if words[0] in ("predict", "segment") else ()
    own: list[str] = []
    pairs: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if not word.startswith("--") or word.split("=")[0] in options:
            own.append(word)
            continue
        pairs.append(word)
        if "=" not in word and queue and not queue[0].startswith("--"):
            pairs.append(queue.pop(0))
    return own, pairs


def command_parser() -> argparse.ArgumentParser:
    """The parser of all commands; it gives `command`, and the arguments of that by their names."""
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
    _add_audit(commands)
    _add_train(commands)
    _add_train_structures(commands)
    _add_evaluate(commands)
    _add_predict(commands)
    _add_segment(commands)
    _add_label(commands)
    _add_export(commands)
    _add_pack(commands)
    _add_crossval(commands)
    _add_cache(commands)
    return parser


def _add(commands: Any, name: str, text: str, more: str = "") -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}. {more}",
        epilog=EPILOG,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,  # --fold, known from training, is not --folds
    )
    return command


def _add_phantom(commands: Any) -> None:
    command = _add(
        commands,
        "phantom",
        "make a synthetic cohort in ImageCHD's layout",
        "Analytic hearts with congenital lesions, label maps and workbook; the same seed gives the same bytes.",
    )
    command.add_argument("cohort", metavar="COHORT", help="folder to make")
    command.add_argument("--patients", type=int, help="number of patients, a third per class")
    command.add_argument(
        "--size",
        type=int,
        default=argparse.SUPPRESS,
        help="pixels of a slice, in each direction (default: {}; with --like-imagechd {}, 512 is real)".format(
            *PHANTOM_SIZES
        ),
    )
    command.add_argument("--slices", type=int, nargs=2, metavar=("MIN", "MAX"), help="slices of a volume")
    command.add_argument("--difficulty", choices=("plain", "realistic"), help="how much hearts vary")
    command.add_argument(
        "--lesions",
        nargs="+",
        metavar="FLAGS",
        help="flags to use instead of the usual ones, joined by +, e.g. DORV+VSD DAA none",
    )
    command.add_argument(
        "--labels",
        choices=("clean", "rough"),
        default=argparse.SUPPRESS,
        help="exact label maps, or such as people draw (default: clean; with --like-imagechd rough); images are the same",
    )
    command.add_argument(
        "--like-imagechd",
        action="store_true",
        help="ImageCHD itself with phantom hearts: its 110 patients and their flags, both workbooks, and all that is odd "
        "about the real files",
    )
    command.add_argument(
        "--archive",
        action="store_true",
        help="with --like-imagechd: also write COHORT/archive, the split archive as Kaggle serves it; needs zip",
    )
    command.set_defaults(**PHANTOM_OPTIONS)
    command.add_argument("--seed", type=int, default=42, help="seed of everything random")


def _add_prepare(commands: Any) -> None:
    command = _add(
        commands,
        "prepare",
        "check scans and table, draw the split, write datalist.json and excluded.csv",
        "The table is ImageCHD's workbook, or a .csv/.xlsx with an id or path column and a class column. Other layouts: "
        "--cohort. A patient without any listed diagnosis counts as Normal unless --normal asks for more.",
    )
    command.add_argument(
        "source", metavar="COHORT", help="folder with the scans, and the table unless --table names one"
    )
    command.add_argument("--out", required=True, metavar="WORK", help="folder to write to")
    command.add_argument(
        "--extract-to",
        metavar="DIR",
        help="COHORT is an archive (Kaggle's archive.zip, split volumes, .zip, .rar): unpack it to DIR first",
    )
    command.add_argument("--table", help="table of diagnoses, when it is not in COHORT")
    command.add_argument(
        "--cohort",
        metavar="FILE",
        help="cohort file for a layout that is not ImageCHD's: id pattern, table, columns, rule; hvsmr2 and acdc are examples",
    )
    command.add_argument(
        "--rule",
        metavar="NAME|FILE",
        default=argparse.SUPPRESS,
        help="how diagnosis flags become a class: strict (ImageCHD: 36 cyanotic, 40 non-cyanotic, 13 left out because DORV "
        "or APVC leaves it open), conventional (DORV cyanotic: 43, 40, 6), all-cyanotic (DORV and APVC cyanotic: 49, 40, 0), "
        "public72 (a published list: 26, 26, 20 normal), seed57 (the list behind the replaced pipeline's 59 patients), or "
        "your own file (default: what the cohort file says, else strict)",
    )
    command.add_argument(
        "--normal",
        default="unflagged",
        metavar="KIND",
        help="which patients without a diagnosis are Normal. unflagged: all (ImageCHD: 21, of whom other sources "
        "contradict 16); uncontradicted: those for whom no other source lists one (5: choose --folds 2 --test-fraction 0.3); "
        "confirmed: those called normal by the authors' earlier table (2: --folds 2 --test-fraction 0). The last two are for "
        "ImageCHD only; the evidence of each patient left out is in excluded.csv",
    )
    command.add_argument("--folds", type=int, default=5, help="cross-validation folds of the training part")
    command.add_argument("--test-fraction", type=float, default=0.2, help="share of patients held out for the test")
    command.add_argument("--seed", type=int, default=42, help="seed of the split")
    command.add_argument("--hu-offset", type=float, help="HU = value + N; found for each file when not given")
    command.add_argument(
        "--confounders",
        action="store_true",
        help="also record the age at the scan, from imagechd_dataset_image_info.xlsx; birth dates and sex are never kept",
    )
    command.add_argument("--skip-bad", action="store_true", help="leave bad rows and scans out instead of stopping")
    command.add_argument("--phase", help="of DICOM series with several phases of the heart only this one, such as 75")
    command.add_argument(
        "--tilt", default="refuse", help="what is done with tilted DICOM series: refuse (default) or resample"
    )


def _add_audit(commands: Any) -> None:
    command = _add(
        commands,
        "audit",
        "look for leaks between the parts of a datalist, and for confounders",
        "Patients in two places, byte copies and near copies (resampled, re-windowed, mirrored) across folds and test part; "
        "slice count, spacing, scanner, age and contrast by class, and how well these alone predict it. "
        "Exit code 1: something leaks. 2: nothing seems to leak, but not all could be audited (a datalist or scan that cannot "
        "be read, a record without patient id). 0: all was compared and nothing leaks.",
    )
    command.set_defaults(failure=2)
    command.add_argument("datalist", metavar="WORK/datalist.json")
    command.add_argument(
        "--against", metavar="OTHER/datalist.json", help="a second datalist that must share no scan or id"
    )
    command.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="OUT",
        help="output folder of a training, or weights, structure networks too; may be given several times: none may have seen a "
        "patient of the test part",
    )
    command.add_argument("--dataset-dir", help="folder of the scans, when it is not the datalist's root")
    command.add_argument(
        "--out", metavar="FILE.json", help="where the audit goes (default: audit.json beside the datalist)"
    )


def _add_train(commands: Any) -> None:
    command = _add(commands, "train", "train a model (bundle config train.json)", KEYS)
    command.add_argument("datalist", metavar="WORK/datalist.json")
    command.add_argument("--out", required=True, metavar="OUT", help="folder for model, curves and logs")
    _add_preset(command)
    _add_tracking(command)


def _add_tracking(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--tracking",
        choices=("mlflow",),
        help="tell an experiment tracker settings, curves, figures with intervals, pictures and the model; MLflow's store is "
        "OUT/mlruns.db, or where MLFLOW_TRACKING_URI says",
    )


def _add_preset(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--preset",
        choices=PRESETS,
        help="settings of the training by name; keys given beside it go before. reference: the network of the replaced "
        "pipeline, trained from scratch. fast: learns the heart's structures from the label maps beside the scans, and "
        "classifies by them. best: finds the heart first and learns the structures in its box",
    )


def _add_train_structures(commands: Any) -> None:
    command = _add(
        commands,
        "train-structures",
        "train the structure network on the label maps beside the scans (train_structures.json), and measure its Dice",
        "Heart chambers, myocardium and great vessels in each frame, from the label maps that ImageCHD ships; scans without one "
        "are left out. Then the Dice of each structure on the held-out test part, with intervals. Keys: frame_size, "
        "sequence_length, sampling, window, channels, context, learning_rate, lr_decay, batch_size, num_samples, "
        "frames_per_epoch, max_epochs, early_stop_patience, val_interval, fold, seed, resume, amp, reader, hu_offset, "
        "cine_slice, dataset_dir.",
    )
    command.add_argument("datalist", metavar="WORK/datalist.json")
    command.add_argument("--out", required=True, metavar="OUT", help="folder; the network goes to OUT/structures")


def _add_evaluate(commands: Any) -> None:
    command = _add(
        commands,
        "evaluate",
        "evaluate the model in OUT on the held-out test part (train.json + evaluate.json)",
        f"The settings of the training are taken from OUT. {KEYS}",
    )
    command.add_argument("datalist", metavar="WORK/datalist.json")
    command.add_argument(
        "--out", required=True, metavar="OUT", help="folder of the training; results go to OUT/evaluation"
    )
    _add_tracking(command)


def _add_predict(commands: Any) -> None:
    command = _add(
        commands,
        "predict",
        "predict scans with the model in OUT (inference.json)",
        f"No labels needed. The settings of the training are taken from OUT. Patients of DICOM files have made names in all "
        f"outputs; who is who stands in OUT.private. {KEYS} Of DICOM also phase and tilt.",
    )
    command.add_argument("source", metavar="SCANS", help="NIfTI file, or folder of NIfTI or DICOM files")
    _add_dicom_out(command, "a structured report")
    command.add_argument(
        "--out", required=True, metavar="OUT", help="folder of the training; results go to OUT/inference"
    )


def _add_dicom_out(command: argparse.ArgumentParser, kind: str) -> None:
    command.add_argument(
        "--dicom-out",
        metavar="FOLDER",
        help=f"also write {kind} of each DICOM series, to be filed in its study; it names the patient",
    )


def _add_segment(commands: Any) -> None:
    command = _add(
        commands,
        "segment",
        "write label maps of the heart's structures for scans (segment.json)",
        "In each scan's own space, with ImageCHD's numbers (1 LV, 2 RV, 3 LA, 4 RA, 5 myocardium, 6 aorta, 7 pulmonary "
        "artery), by the structure network in OUT/structures. Keys: structures, hu_offset, phase, tilt, reader, gpu, amp.",
    )
    command.add_argument("source", metavar="SCANS", help="NIfTI file, or folder of NIfTI or DICOM files")
    _add_dicom_out(command, "a segmentation")
    command.add_argument(
        "--out", required=True, metavar="OUT", help="folder of the training; label maps go to OUT/segmentation"
    )


def _add_label(commands: Any) -> None:
    command = _add(
        commands,
        "label",
        "serve the model in OUT with MONAI Label over a folder of scans",
        "Needs MONAI Label, in an environment of its own (docs/monai_label.md). There is no password: whoever reaches the port "
        "can read what you can.",
    )
    command.add_argument("source", metavar="SCANS", help="folder of NIfTI files")
    command.add_argument("--out", required=True, metavar="OUT", help="folder of the training")
    command.add_argument("--host", default="127.0.0.1", help="address to listen on; the default is this machine only")
    command.add_argument("--port", type=int, default=8000, help="port to listen on")


def _add_export(commands: Any) -> None:
    command = _add(
        commands,
        "export",
        "write the model in OUT as ONNX, and compare OpenVINO with torch on scans",
        "OUT/models/model.onnx is the whole network for other tools; encoder.onnx is what `monai-chd predict --engine openvino` "
        f'runs. Needs pip install "monai_chd[openvino]". {KEYS}',
    )
    command.add_argument("out", metavar="OUT", help="folder of the training")
    command.add_argument("--scans", required=True, metavar="SCANS", help="NIfTI file or folder to compare on")


def _add_pack(commands: Any) -> None:
    command = _add(
        commands,
        "pack",
        "pack the model in OUT as a bundle for MONAI's model zoo",
        "The bundle carries configs, weights, documentation with the figures of the evaluation, and this package, so that it "
        "runs where monai_chd is not installed. Names of patients stay behind.",
    )
    command.add_argument("out", metavar="OUT", help="folder of the training, evaluated")
    command.add_argument("--to", required=True, metavar="FOLDER", help="where the bundle and its archive go")
    command.add_argument(
        "--huggingface-url", metavar="URL", help="where the bundle is to be on Hugging Face; adds a card"
    )
    command.add_argument("--large-files-url", metavar="URL", help="where files over 25 MB are to be fetched from")


def _add_crossval(commands: Any) -> None:
    command = _add(
        commands,
        "crossval",
        "cross-validate the training on all patients, with controls, and write the evaluation report",
        "Repeated folds by patient; the same command goes on where it was stopped. Without --encoder, the pretrained encoder "
        f"is frozen and only the head trained, in minutes; --encoder small_cnn trains end to end. {KEYS}",
    )
    command.add_argument("datalist", metavar="WORK/datalist.json")
    command.add_argument("--out", required=True, metavar="CV", help="folder for fits, predictions and report")
    _add_preset(command)
    command.add_argument("--quick", action="store_true", help="one repeat instead of --repeats")
    command.add_argument("--folds", type=int, default=5, help="folds of a repeat")
    command.add_argument("--repeats", type=int, default=5, help="how often the folds are drawn")
    command.add_argument("--seed", type=int, default=42, help="seed of the first draw of folds")
    command.add_argument(
        "--against", metavar="OTHER_CV", help="another cross-validation on the same folds to compare with"
    )
    command.add_argument(
        "--no-controls", dest="controls", action="store_false", help="leave the controls out, and their fits"
    )


def _add_cache(commands: Any) -> None:
    command = _add(
        commands,
        "cache",
        "write the frames of a datalist, or what a frozen encoder says of them, to disk",
        "`frames`: lossless 8-bit frames, one memory-mapped file a scan; train on them with --cache frames --cache_dir FOLDER. "
        f"`jpg`: one 8-bit JPG a frame, a folder a patient, lossy; train on them with --cache jpg --cache_dir FOLDER. "
        "`features`: what a frozen encoder gives (--encoder efficientnet_lite0), one file a scan; a training with --cache "
        f"features --cache_dir FOLDER, the same encoder and settings works out the head only. {KEYS}",
    )
    command.add_argument("datalist", metavar="WORK/datalist.json")
    command.add_argument("--out", required=True, metavar="FOLDER", help="folder to write to")
    command.add_argument("--format", choices=("frames", "features", "jpg"), default="frames", help="what to write")
