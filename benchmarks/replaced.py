"""The replaced pipeline, as it was: every slice a JPG of the whole range, all frames of the sequence through the network.

Ours is the package's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.child import work_folder

HIDDEN = 128
CLASSES = 3


def write_jpgs(path: str, folder: Path, size: int) -> None:
    """The volume's minimum to maximum become 8 bits, every slice a JPG in the patient's folder."""
    import nibabel as nib
    import numpy as np
    from PIL import Image

    image: Any = nib.load(path)
    volume = image.get_fdata()
    low, high = volume.min(), volume.max()
    grey = ((volume - low) / (high - low) * 255).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(grey.shape[2]):
        Image.fromarray(grey[:, :, index]).resize((size, size)).save(folder / f"slice_{index:03d}.jpg")


def read_jpgs(folder: Path, size: int, length: int) -> Any:
    """The first `length` pictures of the patient, zeros after them, (1, length, size, size)."""
    import numpy as np
    import torch
    from PIL import Image

    names = sorted(folder.glob("*.jpg"))[:length]
    frames = torch.stack([torch.from_numpy(np.asarray(Image.open(name), np.float32) / 255) for name in names])
    return torch.cat([frames, torch.zeros(length - len(frames), size, size)])[None]


def jpg_frames(path: str, size: int, length: int, offset: float) -> Callable[[], Any]:
    """From file to frames by way of JPGs; a way as in `ways`."""
    folder = Path(tempfile.mkdtemp(dir=work_folder()))

    def call() -> Any:
        write_jpgs(path, folder, size)
        return read_jpgs(folder, size, length)

    return call


def replaced_network(encoder: Any, features: int) -> Any:
    """All frames are encoded, padding too, and the LSTM's last state is that after the padding.

    Args:
        encoder: maps (N, C, H, W) to (N, features).
        features: of a frame.
    """
    from torch import nn

    class Replaced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder
            self.lstm = nn.LSTM(features, HIDDEN, batch_first=True)
            self.classifier = nn.Linear(HIDDEN, CLASSES)

        def forward(self, frames: Any) -> Any:  # (B, T, C, H, W)
            B, T = frames.shape[:2]
            encoded = self.encoder(frames.flatten(0, 1)).reshape(B, T, -1)
            return self.classifier(self.lstm(encoded)[0][:, -1])

    return Replaced()
