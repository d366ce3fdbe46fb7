"""Keys of the bundle's train.json in a cross-validation: which it sets itself, which change no result, and its frozen mode's own.

What a key means is the bundle's config; which a user gave is the command line's part.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

Mode = Literal["frozen", "end-to-end"]
"""How fits are trained: a head on features of a frozen encoder that are worked out once, or encoder and head together."""

FIT_KEYS = ("datalist", "output_dir", "checkpoint", "fold", "resume", "seed", "structures")
"""Keys that every fit sets by itself or that a fit has no use for."""

LOCAL_KEYS = ("dataset_dir", "cache_dir", "cache_limit", "num_workers")
"""Keys that change no result, such as folders."""

REPORTED_KEYS = (
    "frame_size", "sequence_length", "sampling", "window", "encoder", "encoder_precision", "structure_epochs", "crop_margin",
    "standardize", "projection", "hidden_size", "num_layers", "bidirectional", "pooling", "heads", "summary",
    "flag_weight", "learning_rate",
    "lr_decay", "batch_size", "max_epochs", "early_stop_patience", "val_interval", "coverage", "risk", "cache",
)  # fmt: skip
"""Keys that the report lists, whether they were given or are the config's defaults."""

FROZEN_ENCODER = "efficientnet_lite0"
"""The encoder that is frozen unless another is named."""

FROZEN_SETTINGS: Mapping[str, Any] = {
    "encoder": FROZEN_ENCODER,
    "frame_size": 224,
    "cache": "features",
    "projection": 128,
    "hidden_size": 64,
    "bidirectional": True,
    "pooling": "max",
    "batch_size": 8,
    "learning_rate": 1e-3,
    "max_epochs": 25,
    "early_stop_patience": 10,
}
"""Keys and values of the frozen mode with that encoder; what is given goes before."""


def fit_settings(given: Mapping[str, Any], out: str | Path) -> dict[str, Any]:
    """Config keys and values of the fits.

    Args:
        given: those of the command line. Without `encoder`, or with `FROZEN_ENCODER`, the frozen mode's are added.
        out: folder of the cross-validation; caches go to its `cache` unless told otherwise.
    """
    cache = {"cache_dir": str(Path(out).resolve() / "cache")}
    if given.get("encoder", FROZEN_ENCODER) != FROZEN_ENCODER:
        return {**cache, **given}
    return {**cache, **FROZEN_SETTINGS, **given}


def mode_of(settings: Mapping[str, Any]) -> Mode:
    """How fits with these settings are trained: features are kept of a frozen encoder only, whichever it is."""
    frozen = settings.get("encoder") == FROZEN_ENCODER or settings.get("cache") == "features"
    return "frozen" if frozen else "end-to-end"
