"""Predict one scan with torch and nibabel alone: python predict_torchscript.py model.ts scan.nii.gz [hu_offset].

hu_offset is what makes HU of the stored values: 0, or -1024 where a file stores HU + 1024 (ImageCHD does). Not a medical device.
"""

import json
import sys

import nibabel as nib
import torch
from torch.nn.functional import interpolate, pad


def frames_of(path: str, facts: dict, hu_offset: float = 0.0) -> torch.Tensor:
    """Frames as the network saw them in training, uint8, (1, 1, T, S, S)."""
    scan = nib.as_closest_canonical(nib.load(path))  # right, anterior, superior
    volume = torch.from_numpy(scan.get_fdata(dtype="float32")).flip(0, 1) + hu_offset  # left, posterior, superior; HU
    frames = volume.permute(2, 1, 0)[:, None]  # feet to head, anterior to posterior, the patient's right to left
    length, size, (lower, upper) = facts["sequence_length"], facts["frame_size"], facts["window"]
    if len(frames) > length:
        frames = frames[torch.linspace(0, len(frames) - 1, length, dtype=torch.float64).round().long()]
    frames = ((frames - lower) / (upper - lower)).clamp(0, 1).contiguous()
    scale = size / max(frames.shape[2:])
    height, width = (max(1, round(side * scale)) for side in frames.shape[2:])
    mode = "area" if height * width < frames.shape[2] * frames.shape[3] else "bilinear"
    if (height, width) != tuple(frames.shape[2:]):
        frames = torch.cat([interpolate(frame[None], (height, width), mode=mode) for frame in frames])
    top, left = (size - height) // 2, (size - width) // 2
    frames = pad((frames * 255).round(), (left, size - width - left, top, size - height - top))
    return frames.to(torch.uint8).transpose(0, 1)[None]


def facts_of(extra: dict) -> dict:
    """What the file says of the model: `monai-chd export` and the zoo's `ckpt_export` each have their own place for it."""
    return json.loads(extra["model.json"]) if extra["model.json"] else json.loads(extra["metadata.json"])["model"]


if __name__ == "__main__":
    extra = {"model.json": "", "metadata.json": ""}
    network = torch.jit.load(sys.argv[1], _extra_files=extra).eval()
    facts = facts_of(extra)
    image = frames_of(sys.argv[2], facts, *map(float, sys.argv[3:]))
    with torch.no_grad():
        logits = network(image, torch.tensor([image.shape[2]]))
    for name, probability in zip(facts["classes"], (logits / facts["temperature"]).softmax(1)[0].tolist(), strict=True):
        print(f"{name},{probability:.9f}")
