"""A plain MONAI training loop with monai_chd's transforms and network: no bundle, no engine.

    python plain_monai_training.py WORK/datalist.json [--persistent FOLDER] [--epochs 3] [--size 96] [--frames 64]

The chain holds MONAI's own transforms between ours. Frames are kept in memory (CacheDataset), or with --persistent on disk
(PersistentDataset). The figure printed is of fold 0, which chose nothing here; it is one fold, no evaluation.
"""

import argparse

import torch
from monai.data import CacheDataset, PersistentDataset, ThreadDataLoader
from monai.transforms import Compose, GaussianSmoothd, Orientationd, RandAdjustContrastd, RandGaussianNoised
from monai.utils import set_determinism

from monai_chd.cohort.datalist import dataset_dir, load_cases
from monai_chd.labels import CLASSES
from monai_chd.networks import CNNLSTM
from monai_chd.transforms import LoadVolumed, PadFramesd, ResizeFramesd, SliceToFramed, WindowHUd


def chain(size: int, frames: int) -> Compose:
    """From a NIfTI file to frames (1, frames, size, size) in [0, 1]; what is random comes last, so that the rest can be kept."""
    steps = [
        LoadVolumed("image"),  # (1, X, Y, Z) in HU, whether stored as HU or HU + 1024
        Orientationd("image", axcodes="LPS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
        SliceToFramed("image"),  # (1, T, H, W), feet to head
        WindowHUd("image", window=(-200, 900)),
        GaussianSmoothd("image", sigma=(0.0, 0.5, 0.5)),  # MONAI's, within each frame
        ResizeFramesd("image", frame_size=size),
        PadFramesd("image", sequence_length=frames),  # adds num_frames
        RandAdjustContrastd("image", prob=0.3, gamma=(0.8, 1.2)),
        RandGaussianNoised("image", prob=0.3, std=0.02),
    ]
    return Compose(steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datalist")
    parser.add_argument("--persistent", metavar="FOLDER")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--frames", type=int, default=64)
    options = parser.parse_args()
    set_determinism(0)
    cases = load_cases(options.datalist, dataset_dir(options.datalist), fold=0)
    steps, loaders = chain(options.size, options.frames), {}
    for part in ("train", "validate"):
        rows = [{key: case[key] for key in ("image", "label")} for case in cases[part]]
        if options.persistent:
            dataset = PersistentDataset(rows, steps, cache_dir=options.persistent)
        else:
            dataset = CacheDataset(rows, steps, progress=False)
        loaders[part] = ThreadDataLoader(dataset, batch_size=4, shuffle=part == "train", num_workers=0)
    network = CNNLSTM("resnet18", hidden_size=64, bidirectional=True, pooling="mean")
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    loss_of = torch.nn.CrossEntropyLoss()
    for epoch in range(options.epochs):
        network.train()
        losses = []
        for batch in loaders["train"]:
            optimizer.zero_grad()
            loss = loss_of(network(batch["image"], batch["num_frames"]), batch["label"])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1}: mean loss {sum(losses) / len(losses):.3f}", flush=True)
    network.eval()
    with torch.no_grad():
        right = [
            (network(batch["image"], batch["num_frames"]).argmax(1) == batch["label"]).float()
            for batch in loaders["validate"]
        ]
    hits = torch.cat(right)
    print(f"fold 0: {int(hits.sum())} of {len(hits)} right; classes: {', '.join(CLASSES)}")


if __name__ == "__main__":
    main()
