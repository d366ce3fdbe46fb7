"""The model zoo's checks of a bundle, one line each: what was checked, and how long it took. Run by `scripts/verify_bundle`.

Uses nothing of this repository: only the bundle, and what is installed beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

LARGEST = 25 * 2**20
FLAKE8 = ("--select=B,C,E,F,N,P,T4,W,B9", "--max-line-length=120", "--ignore=E203,E501,E741,W503,W504,C408,N812,B023")
"""What the zoo's setup.cfg has."""


class FoundError(Exception):
    """What a check found wrong."""


def metadata_of(bundle: Path) -> dict[str, Any]:
    return json.loads((bundle / "configs" / "metadata.json").read_text("utf-8"))


def requirements(bundle: Path) -> list[str]:
    """The packages of a bundle as the zoo installs them: every version is exactly the one named."""
    metadata = metadata_of(bundle)
    named = [
        f"monai=={metadata['monai_version']}",
        f"torch=={metadata['pytorch_version']}",
        f"numpy=={metadata['numpy_version']}",
    ]
    return named + [f"{name}=={version}" for name, version in metadata["required_packages_version"].items()]


def files(bundle: Path) -> str:
    """Necessary and preferred files are there, and none is over 25 MB."""
    needed = ["LICENSE", "configs/metadata.json", "configs/inference.json", "docs/README.md", "docs/data_license.txt"]
    large = bundle / "large_files.yml"
    apart = re.findall(r'"path": "(.+)"', large.read_text()) if large.is_file() else []
    if missing := [
        name for name in [*needed, "models/model.pt"] if name not in apart and not (bundle / name).is_file()
    ]:
        raise FoundError(f"missing: {', '.join(missing)}")
    found = [path for path in bundle.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    if too_large := [str(path) for path in found if path.stat().st_size > LARGEST]:
        raise FoundError(f"over 25 MB: {', '.join(too_large)}")
    size = sum(path.stat().st_size for path in found)
    return f"{len(found)} files, {size / 1e6:.1f} MB, the largest {max(path.stat().st_size for path in found) / 1e6:.1f} MB"


def no_outside_paths(bundle: Path, built_in: str) -> str:
    """Nothing in the bundle names the folder it was built from, or the home of who built it."""
    words = [word.encode() for word in {built_in, str(bundle.parent), str(Path.home())} if len(word) > 5]
    for path in bundle.rglob("*"):
        if path.is_file() and (found := [word for word in words if word in path.read_bytes()]):
            raise FoundError(f"{path}: names {found[0].decode()}")
    return ""


def form(bundle: Path) -> str:
    """JSON, line ends and licence as the zoo's pre-commit has them."""
    for path in bundle.glob("configs/*.json"):
        text = path.read_text("utf-8")
        if text != json.dumps(json.loads(text), indent=4, ensure_ascii=False) + "\n":
            raise FoundError(f"{path}: not indented by 4 with a newline at the end")
    for path in [*bundle.rglob("*.py"), *bundle.rglob("*.md"), *bundle.rglob("*.txt"), bundle / "LICENSE"]:
        text = path.read_text("utf-8")
        if re.search(r"[ \t]+$", text, re.MULTILINE) or (text and not text.endswith("\n")) or text.endswith("\n\n"):
            raise FoundError(f"{path}: blanks at the end of a line or of the file")
    if "Apache License" not in (bundle / "LICENSE").read_text():
        raise FoundError("LICENSE: not Apache")
    return ""


def style(bundle: Path) -> str:
    """black, isort and flake8 with the zoo's settings."""
    package = str(bundle / "monai_chd")
    run([sys.executable, "-m", "black", "-q", "--check", "-l120", "--skip-magic-trailing-comma", package])
    run([sys.executable, "-m", "isort", "-q", "--check", "--profile", "black", "-l", "120", package])
    run([sys.executable, "-m", "flake8", *FLAKE8, "--per-file-ignores=__init__.py:F401,__main__.py:F401", package])
    return ""


def metadata(bundle: Path) -> str:
    """Versions are bare and installed, the changelog has the newest, and the schema holds, without a network."""
    content = metadata_of(bundle)
    if content["version"] not in content["changelog"]:
        raise FoundError(f"version {content['version']} is not in the changelog")
    for line in requirements(bundle):
        if not re.fullmatch(r"[\w-]+==\d+(\.\d+)+", line):
            raise FoundError(f"no bare version: {line}")
    target = Path("eval/schema.json")
    target.parent.mkdir(exist_ok=True)
    shutil.copy("meta_schema.json", target)  # of the zoo's rules: what MONAI would fetch, were there a network
    line = [
        sys.executable,
        "-m",
        "monai.bundle",
        "verify_metadata",
        "--meta_file",
        str(bundle / "configs" / "metadata.json"),
    ]
    run([*line, "--filepath", str(target)])
    return f"version {content['version']}, {len(requirements(bundle))} packages"


def input_and_output(bundle: Path) -> str:
    """The network takes and gives what the metadata says."""
    line = [sys.executable, "-m", "monai.bundle", "verify_net_in_out", "--net_id", "network_def", "--device", "cpu"]
    run([*line, *places(bundle), "--bundle_root", str(bundle)])
    return str(metadata_of(bundle)["network_data_format"]["inputs"]["image"]["spatial_shape"])


def export(bundle: Path) -> str:
    """ckpt_export by scripting, and the shipped model.ts says the same."""
    import torch

    line = [
        sys.executable,
        "-m",
        "monai.bundle",
        "ckpt_export",
        "--net_id",
        "network_def",
        "--filepath",
        "verify_model.ts",
    ]
    run([*line, "--ckpt_file", str(bundle / "models" / "model.pt"), *places(bundle), "--bundle_root", str(bundle)])
    extra = {"metadata.json": ""}
    shipped = torch.jit.load(str(bundle / "models" / "model.ts"), _extra_files=extra)
    made = torch.jit.load("verify_model.ts")
    size = metadata_of(bundle)["model"]["frame_size"]
    frames, counts = torch.rand(2, 1, 7, size, size), torch.tensor([7, 4])
    if not torch.equal(shipped.eval()(frames, counts), made.eval()(frames, counts)):
        raise FoundError("models/model.ts is of other weights than models/model.pt")
    facts = json.loads(extra["metadata.json"])["model"]
    return f"model.ts knows {', '.join(facts['classes'])}, window {facts['window']}, temperature {facts['temperature']:.2f}"


def places(bundle: Path) -> list[str]:
    configs = bundle / "configs"
    return ["--meta_file", str(configs / "metadata.json"), "--config_file", str(configs / "inference.json")]


def unit_tests(bundle: Path) -> str:
    """The zoo's unit tests, from a folder that has models/: properties, training, evaluation, inference, two processes."""
    Path("models").mkdir(exist_ok=True)
    link = Path("models", bundle.name)
    if not link.exists():
        link.symlink_to(bundle)
    for name in sorted(Path("ci/unit_tests").glob("test_*.py")):
        run([sys.executable, "-W", "ignore", str(name)])
    return ""


def loaded(bundle: Path) -> str:
    """`monai.bundle.load` and `create_workflow`, from here, give the shipped network with all its weights."""
    code = f"""
import torch, monai
from monai.bundle import create_workflow, load
path = {str(bundle)!r}
network = load({bundle.name!r}, bundle_dir={str(bundle.parent)!r}, device="cpu").eval()
weights = torch.load(path + "/models/model.pt", weights_only=True)
own = network.state_dict()
assert own.keys() == weights.keys() and all(torch.equal(own[name], weights[name]) for name in own), "other weights"
config = path + "/configs/inference.json"
workflow = create_workflow(config_file=config, workflow_type="infer", bundle_root=path, dataset_dir=path)
assert type(workflow.network_def).__name__ == type(network).__name__
"""
    run([sys.executable, "-W", "ignore", "-c", code], PYTHONPATH=str(bundle))
    return ""


def first_prediction(bundle: Path) -> str:
    """`monai.bundle run` from here, with nothing on Python's path, predicts a scan; seconds from nothing to the table."""
    run(
        [sys.executable, "-m", "monai_chd.cli", "phantom", "scans", "--patients", "3", "--size", "64"],
        PYTHONPATH=str(bundle),
    )
    for path in sorted(Path("scans").glob("*_image.nii.gz"))[1:]:
        path.unlink()
    began = time.perf_counter()
    line = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "monai.bundle",
        "run",
        "--config_file",
        str(bundle / "configs/inference.json"),
    ]
    run([*line, "--bundle_root", str(bundle), "--dataset_dir", "scans", "--output_dir", "out"])
    seconds = time.perf_counter() - began
    rows = Path("out/inference/predictions.csv").read_text().splitlines()
    if len(rows) != 2:
        raise FoundError(f"expected a row for the scan, got {rows}")
    return f"from start to the prediction of a scan: {seconds:.1f} s"


def run(line: list[str], **environment: str) -> None:
    done = subprocess.run(line, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()
        raise FoundError(f"{' '.join(line[:6])} …: " + "\n    ".join(said[-15:]))


def check(bundle: Path, built_in: str) -> int:
    checks: list[tuple[str, Callable[[], str]]] = [
        ("files", lambda: files(bundle)),
        ("form of files", lambda: form(bundle)),
        ("no path outside", lambda: no_outside_paths(bundle, built_in)),
        ("black, isort, flake8", lambda: style(bundle)),
        ("metadata", lambda: metadata(bundle)),
        ("verify_net_in_out", lambda: input_and_output(bundle)),
        ("ckpt_export, model.ts", lambda: export(bundle)),
        ("load, create_workflow", lambda: loaded(bundle)),
        ("run from elsewhere", lambda: first_prediction(bundle)),
        ("the zoo's unit tests", lambda: unit_tests(bundle)),
    ]
    failed = 0
    for name, one in checks:
        began = time.perf_counter()
        try:
            told, mark = one(), "ok"
        except FoundError as fault:
            told, mark, failed = str(fault), "FAILED", failed + 1
        print(f"{mark:7}{name:24}{time.perf_counter() - began:6.1f} s  {told}", flush=True)
    print(f"{len(checks) - failed} passed, {failed} failed: {bundle}")
    return min(failed, 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("requirements", "check"))
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--built-in", default="", help="folder that the bundle must not name")
    options = parser.parse_args()
    if options.what == "requirements":
        print("\n".join(requirements(options.bundle)))
        return 0
    warnings.simplefilter("ignore")
    return check(options.bundle.resolve(), options.built_in)


if __name__ == "__main__":
    sys.exit(main())
