"""The design holds: imports point down, every module is tested, one place knows each constant, help is quick."""

import ast
import json
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest

import monai_chd
from monai_chd.labels import CLASSES

PACKAGE = Path(monai_chd.__file__).parent
TESTS = Path(__file__).parent
CONFIGS = PACKAGE.parent / "bundle" / "configs"
MODULES = {path.stem: ast.parse(path.read_text(), str(path)) for path in sorted(PACKAGE.glob("*.py"))}

LAYERS = (
    {"__init__", "labels", "errors", "files", "processes"},
    {
        # from a download to a datalist
        "archives", "archive_members", "zip_volumes", "split_zip", "rar", "tables", "image_info", "imagechd", "rules",
        "diagnoses", "cohorts", "cohort_tables", "joining", "inspection", "splits", "overview", "datalist",
        # from a file to frames to logits
        "reading", "streaming", "frames", "transforms", "caching", "feature_cache", "dataset", "networks", "efficientnet",
        # leaks and confounders
        "fingerprints", "likeness", "audit", "audit_records", "audit_text", "confounders",
        # figures
        "metrics", "statistics", "calibration", "out_of_fold", "curves", "evaluation", "settings", "predictions",
        # synthetic hearts
        "phantom", "phantom_imagechd", "phantom_anatomy", "phantom_layers", "phantom_lesions", "phantom_volume",
    },
    {
        "figures", "contact_sheet", "handlers", "threads", "saliency", "export", "hosts", "running",
        # cross-validation
        "folds", "fits", "controls", "readings", "image_features", "worst_cases", "cv_report", "crossval",
        # the report page
        "markup", "charts", "checklists", "model_card", "occlusion", "report_figures", "report_html", "report_parts",
        "report_results", "report_sections",
    },
    {"cli"},
)  # fmt: skip
"""Subjects bottom up, as in the design; a module imports from its own layer or one below, never in a circle."""

LIGHT = {"labels"}
"""Modules with the standard library and numpy only."""


def imported(tree: ast.Module) -> set[str]:
    """Full names of all modules imported anywhere in a file; `from a import b` gives a and a.b."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "monai_chd" if node.level else ""
            base = ".".join(filter(None, (base, node.module)))
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return names


def own_imports(tree: ast.Module) -> set[str]:
    """Modules of the package that a module imports."""
    parts = [name.split(".") for name in imported(tree)]
    return {part[1] for part in parts if part[0] == "monai_chd" and len(part) > 1 and part[1] in MODULES}


def layer(module: str) -> int:
    return next(i for i, names in enumerate(LAYERS) if module in names)


def literals(tree: ast.Module) -> list[object]:
    """Constants of a file without docstrings; a minus before a number belongs to it (-200 HU)."""
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            skipped.add(id(node.value))
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            skipped.add(id(node.operand))
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub):
            skipped.add(id(node.right))
        elif isinstance(node, ast.JoinedStr):
            skipped |= {id(value) for value in node.values}
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in skipped]


def places(value: object, type_: type) -> dict[str, int]:
    """In which modules a literal stands, and how often."""
    counts = {
        name: sum(type(found) is type_ and found == value for found in literals(tree)) for name, tree in MODULES.items()
    }
    return {name: count for name, count in counts.items() if count}


def test_the_parser_sees_the_package():
    assert {"labels", "datalist", "cli"} <= set(MODULES)
    assert own_imports(MODULES["datalist"]) >= {"files", "labels", "joining", "splits"}
    assert own_imports(ast.parse("from . import cli\nfrom .labels import CLASSES\nimport monai_chd.tables as t")) == {
        "cli", "labels", "tables",
    }  # fmt: skip


def test_there_are_no_subpackages_yet():
    assert [path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE] == []


def test_every_module_has_a_layer():
    assert set(MODULES) <= set().union(*LAYERS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down_only(module):
    upwards = {name for name in own_imports(MODULES[module]) if layer(name) > layer(module)}
    assert not upwards, f"{module} imports from above: {upwards}"


def test_no_module_imports_itself_in_a_circle():
    below: dict[str, set[str]] = defaultdict(set)
    for module, tree in MODULES.items():
        below[module] |= own_imports(tree)
    for _ in MODULES:
        for module in MODULES:
            below[module] |= set().union(*(below[name] for name in list(below[module])))
    assert [module for module in MODULES if module in below[module]] == []


@pytest.mark.parametrize("module", sorted(LIGHT))
def test_the_lowest_subject_needs_the_standard_library_and_numpy_only(module):
    roots = {name.split(".")[0] for name in imported(MODULES[module])}
    assert roots <= {*sys.stdlib_module_names, "numpy", "monai_chd"}


def test_the_bundle_holds_no_python_and_the_package_never_imports_tests_or_scripts():
    assert list(CONFIGS.parent.rglob("*.py")) == []
    for module, tree in MODULES.items():
        assert not {name.split(".")[0] for name in imported(tree)} & {"tests", "conftest", "scripts", "bundle"}, module


def test_no_module_is_a_drawer_of_odds_and_ends():
    assert not {"utils", "util", "helpers", "helper", "common", "misc", "tools"} & set(MODULES)


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"__init__"}))
def test_every_module_has_its_test_file(module):
    assert (TESTS / f"test_{module}.py").is_file()


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_name_is_written_once(name):
    assert places(name, str) == {"labels": 1}


@pytest.mark.parametrize("number", [512, 200])
def test_frame_size_and_sequence_length_are_written_once_in_the_code(number):
    assert places(number, int) == {"frames": 1}


def test_the_transforms_defaults_are_these_constants():
    from monai_chd.transforms import PadFrames, PadFramesd, ResizeFrames, ResizeFramesd

    assert ResizeFrames().frame_size == ResizeFramesd("image").step.frame_size == 512
    assert PadFrames().sequence_length == PadFramesd("image").step.sequence_length == 200


@pytest.mark.parametrize("config", ["train", "inference"])
def test_each_config_that_stands_alone_writes_them_once_and_at_the_top(config):
    content = json.loads((CONFIGS / f"{config}.json").read_text())
    assert (content["frame_size"], content["sequence_length"]) == (512, 200)
    assert [values_of(content).count(number) for number in (512, 200)] == [1, 1]


def values_of(content: object) -> list[object]:
    """All plain values of a config."""
    if isinstance(content, dict):
        return [value for child in content.values() for value in values_of(child)]
    return [value for child in content for value in values_of(child)] if isinstance(content, list) else [content]


def test_configs_that_change_another_do_not_write_them_again():
    deltas = [path for path in CONFIGS.glob("*.json") if path.stem not in ("train", "inference", "metadata")]
    assert len(deltas) >= 2
    for path in deltas:
        assert not {512, 200} & {value for value in values_of(json.loads(path.read_text())) if type(value) is int}, path


def test_the_console_script_shows_its_help_in_under_a_second():
    script = Path(sys.executable).with_name("monai-chd")
    command = [str(script)] if script.is_file() else [sys.executable, "-m", "monai_chd.cli"]
    seconds = []
    for _ in range(5):  # the machine may be busy with other things: the best counts
        start = time.perf_counter()
        done = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - start)
        if seconds[-1] < 1:
            break
    assert "usage: monai-chd" in done.stdout
    assert min(seconds) < 1


def test_the_command_line_imports_nothing_heavy_until_a_command_runs():
    code = "import sys, monai_chd.cli; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "monai", "ignite", "numpy", "pandas", "sklearn", "matplotlib", "nibabel"} & set(loaded)
