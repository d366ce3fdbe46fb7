"""What a frozen encoder says of the real frames of a scan, kept on disk, so that a training works out the head only.

How frames are made is the transforms' part, how they are encoded the encoder's; frames themselves are kept by `frame_cache`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import get_worker_info
from tqdm import tqdm

from monai_chd import networks
from monai_chd.data.chain_key import code_key, transform_key, value_key
from monai_chd.data.scan_files import ScanFiles, notes_of, own_settings, restored, stamp_of
from monai_chd.errors import UserError
from monai_chd.files import replacing, writable_folder
from monai_chd.networks.encoders import is_frozen, usable_precision
from monai_chd.nifti import crc32

_START = struct.Struct("<8sIQ")  # magic, checksum of all that follows, bytes of the JSON that follows
_MAGIC = b"CHDFEAT1"
_NO_MATTER = ("training", "chunk_size", "map_size", "precision")
"""Attributes of an encoder's modules that change no feature; precision is taken as it works on the device."""


class _FeatureEntry(NamedTuple):
    features: NDArray[np.float32]  # (L, F), zero in the rows of padding
    notes: dict[str, Any]


class FeatureFiles:
    """One file of features a scan: float32, shape (num_frames, F), without padding.

    A file's name is a digest of the scan's bytes, every transform with its settings, the case's own settings, the encoder's
    architecture, weights and precision, and the code of both, so one folder serves any number of trainings,
    folds, processes and jobs. It is written once, to a temporary name; its checksum is verified whenever it is opened,
    and a damaged one is written again. Processes that fill the same folder share the work.

    Args:
        folder: where the files are.
        transform: chain from path to padded frames (C, L, S, S) with `num_frames`; nothing random in it.
        encoder: a frozen encoder, see `networks.CNNLSTM`.

    Raises:
        UserError: no encoder, one that is trained, or a random transform.
    """

    def __init__(self, folder: str | Path, transform: Compose, encoder: nn.Module | None) -> None:
        if encoder is None or not hasattr(encoder, "feature_size"):
            raise UserError(f"cache: 'features' needs a network with a frame encoder, came {type(encoder).__name__}")
        if not is_frozen(encoder):
            raise UserError(
                "cache: 'features' keeps what a frozen encoder says of a scan, and this encoder is trained; take a frozen "
                "one, such as --encoder efficientnet_lite0, or --cache frames"
            )
        self.folder = writable_folder(folder)
        self.transform = transform
        self.encoder = encoder
        kinds = list(dict.fromkeys(map(type, encoder.modules())))
        self._settings = transform_key(transform)
        self._code = (code_key(networks) + value_key(kinds, "the encoder")).hex()
        self._files = ScanFiles(self._place, self._open)
        self._encoder_key: tuple[object, str] = (None, "")
        # to find them anew at every access takes longer than to read the features
        self._watched = list(_tensors(encoder).values())
        # right after a checkpoint is loaded, since a worker process cannot read weights on a GPU
        encoder.register_load_state_dict_post_hook(self._loaded)

    def fill(self, cases: Sequence[Mapping[str, Any]]) -> None:
        """Encode every case that has no sound file yet, with a progress bar.

        Raises:
            UserFileError, UserError: a scan is gone or cannot be read.
        """
        left = [case for case in cases if self._files.find(case)[1] is None]
        with tqdm(total=len(left), desc="encoding frames", unit="scan", disable=not left) as bar:
            for wait in (False, True):  # first those that no other process is busy with
                busy = []
                for case in left:
                    if self._make(case, wait=wait):
                        bar.update()
                    else:
                        busy.append(case)
                left = busy

    def load(self, case: Mapping[str, Any]) -> dict[str, Any]:
        """The case with `image` as padded features (L, F), from the file, which is written first where needed.

        Raises:
            UserFileError, UserError: the scan is gone or cannot be read.
        """
        place, entry = self._files.find(case)
        if entry is None:
            self._make(case, wait=True)
            place, entry = self._files.find(case)
        if entry is None:
            raise UserError(f"{place}: cannot be read back; check the disk, or choose another cache_dir")
        return restored(case, torch.from_numpy(entry.features), entry.notes)

    def _place(self, digest: str, case: Mapping[str, Any]) -> Path:
        precision = usable_precision(getattr(self.encoder, "precision", "float32"), _device(self.encoder))
        parts = [digest, self._settings, own_settings(case), self._encoder(), precision, self._code]
        key = json.dumps(parts, sort_keys=True).encode()
        return self.folder / f"{hashlib.sha256(key).hexdigest()[:40]}.features"

    def _encoder(self) -> str:
        """The encoder's key, worked out again when its weights have been replaced, as by a checkpoint that is loaded."""
        # mapped, since it is asked at every access: a loop over 300 tensors takes another quarter of a millisecond
        state = tuple(map(Tensor.data_ptr, self._watched)), tuple(map(attrgetter("_version"), self._watched))
        if self._encoder_key[0] != state:
            self._encoder_key = (state, encoder_key(self.encoder))
        return self._encoder_key[1]

    def _loaded(self, *_: Any) -> None:
        self._watched = list(_tensors(self.encoder).values())
        self._encoder()

    def _open(self, place: Path) -> _FeatureEntry | None:
        """A sound entry, or None; a file that was cut, damaged or is something else counts as none."""
        width = cast(int, self.encoder.feature_size)
        try:
            with place.open("rb") as file:
                magic, checksum, length = _START.unpack(file.read(_START.size))
                text = file.read(length) if magic == _MAGIC and length <= os.fstat(file.fileno()).st_size else b""
                notes = json.loads(text)
                features = np.zeros((len(notes["frame_indices"]), width), "<f4")
                real = features[: notes["num_frames"]]
                # into its place in the padded sequence at once
                whole = file.readinto(real.data.cast("B")) == real.nbytes and not file.read(1)
        except (OSError, ValueError, KeyError, TypeError, struct.error):
            return None
        return _FeatureEntry(features, notes) if whole and crc32(real.data.cast("B"), crc32(text)) == checksum else None

    def _make(self, case: Mapping[str, Any], *, wait: bool) -> bool:
        """Write a case's file unless another process has; False when one is at it and there is to be no waiting."""
        place, _ = self._files.find(case)
        with self._claim(place, wait=wait) as claimed:
            if claimed and self._open(place) is None:
                self._write(place, case)
        return claimed

    @contextmanager
    def _claim(self, place: Path, *, wait: bool) -> Iterator[bool]:
        """Keep other processes from the same file, by a lock that ends with the process at the latest."""
        with (self.folder / ".features.lock").open("ab") as file:
            try:
                byte = int(place.stem[:8], 16) >> 1  # one byte of the lock's file stands for one place
                fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, byte)
            except (BlockingIOError, PermissionError):
                yield False
                return
            except OSError:
                pass  # no locks on this file system: two processes may do the same work
            yield True

    def _write(self, place: Path, case: Mapping[str, Any]) -> None:
        stamp = stamp_of(Path(case["image"]))
        image: MetaTensor = self.transform(dict(case))["image"]  # type: ignore[index, call-overload, assignment]
        features = self._encode(image)
        text = json.dumps({**notes_of(image), "stamp": stamp}).encode()
        content = text + features.astype("<f4").tobytes()
        with replacing(place) as temporary:
            temporary.write_bytes(_START.pack(_MAGIC, crc32(content), len(text)) + content)

    def _encode(self, image: MetaTensor) -> NDArray[np.float32]:
        """Padded frames (C, L, S, S) to features of the real ones (num_frames, F)."""
        device = _device(self.encoder)
        if device.type != "cpu" and get_worker_info() is not None:
            raise UserError(
                f"{image.meta['filename_or_obj']}: its features in {self.folder} are gone or damaged, and a worker process "
                f"cannot encode on {device}; start again, or set num_workers to 0"
            )
        count = int(image.meta["num_frames"])
        frames = image.as_tensor()[None, :, :count].to(device)
        with _evaluating(self.encoder), torch.no_grad():
            features: Tensor = self.encoder(frames, torch.tensor([count], device=device))
        return features[0].float().cpu().numpy()  # type: ignore[no-any-return]


def encoder_key(encoder: nn.Module) -> str:
    """Digest of an encoder's architecture and weights: classes, public attributes, names and values of all tensors."""
    digest = hashlib.sha256()
    for name, module in encoder.named_modules():
        kind = f"{type(module).__module__}.{type(module).__qualname__}"
        own = {key: value for key, value in sorted(vars(module).items()) if key[0] != "_" and key not in _NO_MATTER}
        digest.update(value_key([name, kind, own], f"the encoder's {kind} {name}".rstrip()))
    for name, tensor in _tensors(encoder).items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _tensors(encoder: nn.Module) -> dict[str, Tensor]:
    return {**dict(encoder.named_parameters()), **dict(encoder.named_buffers())}


def _device(encoder: nn.Module) -> torch.device:
    tensor = next(chain(encoder.parameters(), encoder.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device


@contextmanager
def _evaluating(encoder: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while. Afterwards each module is as it was, without a call of `train`, which means more."""
    modes = [(module, module.training) for module in encoder.modules()]
    encoder.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
