"""Predict one scan with onnxruntime, numpy and nibabel alone: python predict_onnx.py model.onnx scan.nii.gz [hu_offset].

hu_offset is what makes HU of the stored values: 0, or -1024 where a file stores HU + 1024 (ImageCHD does). Not a medical device.
"""

import json
import sys

import nibabel as nib
import numpy as np
import onnxruntime


def frames_of(path: str, facts: dict, hu_offset: float = 0.0) -> np.ndarray:
    """Frames as the network saw them in training, float32 in [0, 1] in steps of 1/255, (1, 1, T, S, S)."""
    scan = nib.as_closest_canonical(nib.load(path))  # right, anterior, superior
    volume = scan.get_fdata(dtype="float32")[::-1, ::-1] + np.float32(hu_offset)  # left, posterior, superior; HU
    frames = volume.transpose(2, 1, 0)  # feet to head, anterior to posterior, the patient's right to left
    length, size, (lower, upper) = facts["sequence_length"], facts["frame_size"], facts["window"]
    if len(frames) > length:
        frames = frames[np.linspace(0, len(frames) - 1, length).round().astype(int)]
    frames = np.clip((frames - np.float32(lower)) / np.float32(upper - lower), 0, 1)
    scale = size / max(frames.shape[1:])
    height, width = (max(1, round(side * scale)) for side in frames.shape[1:])
    if (height, width) != frames.shape[1:]:
        frames = np.stack([means_of_areas(frame, height, width) for frame in frames])
    top, left = (size - height) // 2, (size - width) // 2
    frames = np.pad(
        np.rint(frames * np.float32(255)), ((0, 0), (top, size - height - top), (left, size - width - left))
    )
    return frames[None, None].astype(np.float32) / np.float32(255)


def means_of_areas(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """A frame made smaller, each pixel the mean of the area it covers, summed in torch's order: row by row."""
    rows, columns = frame.shape
    if height > rows or width > columns:
        raise SystemExit(
            f"{rows}x{columns} pixels are fewer than the model's {height}x{width}: use model.ts, which enlarges too"
        )
    top, bottom = np.arange(height) * rows // height, -(-(np.arange(height) + 1) * rows // height)
    left, right = np.arange(width) * columns // width, -(-(np.arange(width) + 1) * columns // width)
    total = np.zeros((height, width), np.float32)
    for down in range(max(bottom - top)):
        for across in range(max(right - left)):
            inside = (top + down < bottom)[:, None] & (left + across < right)[None]
            taken = frame[np.minimum(top + down, rows - 1)[:, None], np.minimum(left + across, columns - 1)[None]]
            total += np.where(inside, taken, np.float32(0))
    return total / (bottom - top).astype(np.float32)[:, None] / (right - left).astype(np.float32)[None]


if __name__ == "__main__":
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    facts = json.loads(session.get_modelmeta().custom_metadata_map["model.json"])
    image = frames_of(sys.argv[2], facts, *map(float, sys.argv[3:]))
    (logits,) = session.run(None, {"image": image, "num_frames": np.array([image.shape[2]])})
    scaled = np.exp((logits[0] - logits[0].max()) / facts["temperature"])
    for name, probability in zip(facts["classes"], scaled / scaled.sum(), strict=True):
        print(f"{name},{probability:.9f}")
