"""Runs the MONAI bundle in this process: where its configs are, which keys they have, and a run as `monai.bundle run` does it.

What a config builds is the config's; what a command line means is `cli`'s.
"""

from __future__ import annotations

import contextlib
import copy
import difflib
import json
import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_chd.errors import UserError, UserFileError
from monai_chd.files import TEXT, writable_folder


def bundle_folder() -> Path:
    """The MONAI bundle: in the package when that is installed, beside it in a checkout, around it in a bundle that carries it.

    Raises:
        UserFileError: neither is there.
    """
    package = Path(__file__).resolve().parents[1]
    places = [package / "bundle", package.parent / "bundle", package.parent]
    for place in places:
        if (place / "configs" / "train.json").is_file():
            return place
    raise UserFileError(f"the bundle's configs are not at {', '.join(map(str, places))}; install monai_chd again")


class Expression(str):
    """Text of an override that a config is to run or look up. The package's own only: what a user or a file says is data."""


def literal(value: Any) -> Expression:
    """Plain data (text, numbers, lists, dictionaries) as an expression that gives it back, whatever its text begins with.

    MONAI runs text that begins with `$`, looks up what begins with `@` or `%`, and makes `::` of every `#`.
    """
    escaped = re.sub("[$@%#]|::", lambda marks: "".join(f"\\x{ord(mark):02x}" for mark in marks[0]), repr(value))
    return Expression("$" + escaped)


def _as_data(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides whose text is data; an object is a config of its own (`{"_target_": …}`)."""
    return {key: _plain(value) for key, value in overrides.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    is_data = isinstance(value, str) and not isinstance(value, Expression)
    return literal(value) if is_data else copy.deepcopy(value)  # MONAI writes into what it is given


def run_bundle(configs: Sequence[str], *, tracking: str | None = None, **overrides: Any) -> None:
    """Run the bundle as `python -m monai.bundle run` does, with text of the overrides taken as data.

    Args:
        configs: names of configs of the bundle ("train"), each overriding those before.
        tracking: "mlflow", for MONAI's experiment tracking.
        overrides: top-level config keys; see `Expression`.

    Raises:
        UserError: MLflow is not installed, or its store cannot be written.
    """
    from monai.bundle import run

    if tracking is not None:
        _check_store(Path(overrides["output_dir"]))

    folder = bundle_folder()
    files = [str(folder / "configs" / f"{name}.json") for name in configs]
    with warnings.catch_warnings(), _no_bare_logs(overrides.get("output_dir")):
        # MONAI warns that a config can run code; of the package's own it need not, of any other it does
        warnings.filterwarnings("ignore", re.escape(f"parsing config_file {files}: "), UserWarning)
        run(
            config_file=files,
            bundle_root=str(folder),
            meta_file=str(folder / "configs" / "metadata.json"),
            logging_file=str(folder / "configs" / "logging.conf"),
            **({} if tracking is None else {"tracking": tracking, "run_name": _run_name(configs[-1])}),
            **_as_data(overrides),
        )


def _run_name(config: str) -> str:
    """A name of its own: MONAI goes on in any run without one that was not ended, such as that of a training that was killed."""
    return f"{config} {time.strftime('%Y-%m-%d %H:%M:%S')} {os.getpid()}"


def _check_store(output_dir: Path) -> None:
    """Refuse a store of MLflow that cannot be opened before anything is trained."""
    from monai.utils import optional_import, path_to_sqlite_uri

    mlflow, found = optional_import("mlflow")
    if not found:
        raise UserError('mlflow is not installed: pip install "monai_chd[mlflow]"')
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        uri = path_to_sqlite_uri(str(writable_folder(output_dir) / "mlruns.db"))
    try:
        mlflow.MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
    except Exception as error:
        said = str(error).strip().splitlines()[0]
        raise UserError(
            f"MLflow: the tracking store {uri} cannot be opened ({said}); mend MLFLOW_TRACKING_URI, or leave out --tracking"
        ) from None


@contextlib.contextmanager
def _no_bare_logs(output_dir: str | None) -> Iterator[None]:
    """When a run fails, remove the TensorBoard files without an event, which are begun when a config is read."""
    try:
        yield
    except BaseException:
        for path in Path(output_dir or "").glob("tensorboard/events.out.tfevents.*") if output_dir else ():
            start = path.read_bytes()[:8]
            # a record is its length in 8 bytes, 4 of checksum, the content, 4 of checksum; the first is the file's version
            if len(start) < 8 or path.stat().st_size <= 16 + int.from_bytes(start, "little"):
                path.unlink()
        raise


@contextlib.contextmanager
def quietly(log: str | Path) -> Iterator[None]:
    """Let what a run prints and logs, progress bars too, go to the end of a file instead of the screen."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    writable_folder(Path(log).parent)
    with Path(log).open("a", **TEXT) as file:
        # not by setStream, which flushes the old stream: that one may be closed
        streams = [(handler, handler.stream) for handler in _screen_handlers()]
        for handler, _ in streams:
            handler.stream = file
        try:
            with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
                yield
        finally:
            for handler, stream in streams:
                handler.stream = stream
            # handlers that the run made write to the file, which closes here
            root.handlers[:] = handlers
            root.setLevel(level)
            for handler in _screen_handlers():
                if handler.stream is file:
                    handler.stream = sys.stdout


def _screen_handlers() -> list[Any]:
    """Handlers of all loggers that write to a stream: MONAI's modules have their own, of the stdout at their import."""
    loggers = [logging.getLogger(), *logging.getLogger().manager.loggerDict.values()]
    handlers = [handler for logger in loggers for handler in getattr(logger, "handlers", ())]
    return [handler for handler in dict.fromkeys(handlers) if type(handler) is logging.StreamHandler]


def config_content(name: str) -> dict[str, Any]:
    """A config of the bundle as its file has it."""
    return json.loads((bundle_folder() / "configs" / f"{name}.json").read_text("utf-8"))  # type: ignore[no-any-return]


def configured(configs: Sequence[str], overrides: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    """Parts that the bundle's configs build, without a run, with text of the overrides taken as data.

    Args:
        configs: names of configs of the bundle.
        overrides: config keys; see `Expression`.
        names: ids of the parts, such as "network_def".
    """
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config([str(bundle_folder() / "configs" / f"{name}.json") for name in configs])
    parser.update({"bundle_root": str(bundle_folder()), **_as_data(overrides)})
    return [parser.get_parsed_content(name) for name in names]


def check_keys(configs: Sequence[str], overrides: Mapping[str, Any], given: Sequence[str]) -> None:
    """Refuse a config key that does not exist, which MONAI would take in silence, or that the command itself gives.

    Args:
        configs: names of the bundle's configs that know the keys.
        overrides: config keys and values.
        given: keys that the command sets by itself.

    Raises:
        UserError: names the keys, and what was perhaps meant.
    """
    twice = [key for key in overrides if key in (*given, "bundle_root")]
    if twice:
        raise UserError(f"config key {', '.join(twice)}: given by the command's own arguments; leave it out")
    known = set().union(*(config_content(name) for name in configs))
    unknown = [key for key in overrides if re.split(r"[#:]", key)[0] not in known]
    if unknown:
        public = sorted(_public_keys(configs) - {*given})
        near = [match for key in unknown for match in difflib.get_close_matches(key, public, n=1)]
        meant = f"did you mean {', '.join(near)}? " if near else ""
        raise UserError(f"unknown config key {', '.join(unknown)}; {meant}known: {', '.join(public)}")


def _public_keys(configs: Sequence[str]) -> set[str]:
    """Keys that are for people: those that stand above `settings` in a config. What follows is how its parts are built."""
    found: set[str] = set()
    for keys in (list(config_content(name)) for name in configs):
        found |= set(keys[: keys.index("settings")] if "settings" in keys else ())
    return found - {"imports", "bundle_root", "trained_with"}
