"""Five folds of the LSTM head on features that are kept, with the fits of `monai-chd crossval`.

How long the features take is the part of `embedding`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.child import Side, work_folder
from benchmarks.comparison import Bench, Row
from benchmarks.volumes import PATIENTS, STORED_OFFSET, Volumes


def side(paths: Sequence[str], size: int, length: int) -> Side:
    """Five folds over these scans, one a patient, configs and files included; the note says how many epochs."""
    from monai_chd.crossval.config_keys import fit_settings
    from monai_chd.crossval.design import new_design
    from monai_chd.crossval.fit_processes import fit_processes, processes_for, run_fits
    from monai_chd.workflow.run import configured, literal, quietly

    work = work_folder()
    settings = fit_settings({"frame_size": size, "sequence_length": length}, work / "head")
    design = new_design(_datalist(paths, work), folds=5, repeats=1, settings=settings)
    times = itertools.count()

    def fits() -> str:
        folder = work / f"fits_{next(times)}"
        with fit_processes(processes_for(design.mode)) as pool:  # their start counts, as in `crossval`
            list(run_fits(design, folder, range(1), pool))
        return f"{design.folds} folds of {len(paths)} patients, {settings['max_epochs']} epochs each"

    def ready() -> None:
        scans = [{**record, "image": str(design.image_path(record))} for record in design.records]
        with quietly(work / "features.log"):
            own = {"datalist": str(design.datalist), "train#dataset#data": literal(scans)}
            configured(["train"], {**design.overrides, **own}, ["train#dataset"])

    return Side(lambda: None, ready, fits)


def _datalist(paths: Sequence[str], work: Path) -> Path:
    """A datalist of these scans, with classes dealt in turn."""
    from monai_chd.labels import CLASSES

    scans = work / "scans"
    scans.mkdir(exist_ok=True)
    records = []
    for index, path in enumerate(paths):
        name = f"ct_{1001 + index}_image.nii.gz"
        (scans / name).symlink_to(Path(path).resolve())
        record = {"image": name, "label": index % len(CLASSES), "patient": str(1001 + index), "fold": index % 5}
        records.append({**record, "flags": [], "hu_offset": STORED_OFFSET})  # as `prepare` would have found
    content = {"root": "scans", "classes": list(CLASSES), "training": records, "test": []}
    (work / "datalist.json").write_text(json.dumps(content))
    return work / "datalist.json"


def benches(made: Volumes) -> list[Bench]:
    """As many patients as ImageCHD has."""
    given = {"paths": made.small(PATIENTS), "size": 32, "length": 200}
    what = f"five-fold training of the LSTM head on cached embeddings, {PATIENTS} patients"
    return [
        Bench(
            "head",
            f"{what} of 150 to 250 slices (embeddings of their shape, from small pictures, made before)",
            {"five folds": ("head", given)},
            (Row(what, "seconds", "five folds", target=60),),
            small=PATIENTS,
        )
    ]
