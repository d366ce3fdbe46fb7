"""The design holds: arrows between rooms are those of the table, every module is tested, one place knows each constant."""

import ast
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import monai_chd
from monai_chd.labels import CLASSES

PACKAGE = Path(monai_chd.__file__).parent
TESTS = Path(__file__).parent
CONFIGS = PACKAGE.parent / "bundle" / "configs"

_spec = importlib.util.spec_from_file_location("architecture", PACKAGE.parent / "scripts" / "architecture.py")
assert _spec and _spec.loader
architecture = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(architecture)

MODULES = architecture.modules()

ARROWS = {
    "ground": (),
    "dicom": ("ground",),
    "metrics": ("ground",),
    "networks": ("ground",),
    "archives": ("dicom", "ground"),
    "scans": ("dicom", "ground"),
    "cohort": ("dicom", "ground", "scans"),
    "transforms": ("ground", "networks", "scans"),
    "audit": ("cohort", "ground", "metrics", "scans"),
    "data": ("dicom", "ground", "networks", "scans", "transforms"),
    "phantom": ("cohort", "ground"),
    "report": ("cohort", "ground", "metrics", "scans"),
    "workflow": ("cohort", "data", "ground", "metrics", "networks", "scans"),
    "crossval": ("audit", "cohort", "ground", "metrics", "networks", "report", "transforms", "workflow"),
    "handlers": ("dicom", "ground", "metrics", "networks", "scans", "transforms", "workflow"),
    "hosts": ("cohort", "ground", "workflow"),
    "cli": ("archives", "audit", "cohort", "crossval", "dicom", "ground", "hosts", "phantom", "report", "workflow"),
}
"""Which room imports from which. A new arrow is a decision: draw it here and say why in docs/decisions when it is not plain."""

LIGHT = {"labels"}
"""Modules with the standard library and numpy only."""

HEAVY = {
    "matplotlib", "scipy", "sklearn", "itk", "isal", "openvino", "onnx", "tqdm", "pandas", "monai", "torch", "PIL", "pydicom",
    "highdicom",
}  # fmt: skip
"""Third-party packages that a function may import for itself, since they take time or are not always there."""


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


def imported_in_functions(tree: ast.Module) -> set[str]:
    """Full names of all modules imported inside functions."""
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return set().union(*(architecture.imported(function) for function in functions))


def test_the_parser_sees_the_package():
    assert {"labels", "cohort", "cohort.datalist", "cli"} <= set(MODULES)
    assert architecture.own_imports(MODULES["cohort.datalist"], MODULES) >= {"files", "labels", "cohort.splits"}
    text = "from monai_chd import cli\nfrom monai_chd.labels import CLASSES\nimport monai_chd.cohort.tables as t"
    assert architecture.own_imports(ast.parse(text), MODULES) == {"cli", "labels", "cohort.tables"}
    assert [architecture.room(name) for name in ("labels", "cohort", "cohort.tables", "cli")] == [
        "ground", "cohort", "cohort", "cli",
    ]  # fmt: skip


def test_a_circle_of_rooms_is_found():
    with pytest.raises(ValueError, match="in a circle: a, b"):
        architecture.floors({"a": {"b"}, "b": {"a"}, "c": set()})


def test_rooms_import_from_each_other_as_the_table_says_and_the_table_names_no_arrow_that_is_not_there():
    assert {room: tuple(sorted(below)) for room, below in architecture.arrows().items()} == ARROWS


def test_the_arrows_point_down_only():
    floors = architecture.floors({room: set(below) for room, below in ARROWS.items()})
    assert floors[0] == ["ground"]
    assert floors[-1] == ["cli"]


def test_the_picture_of_the_rooms_is_that_of_the_code():
    page = architecture.PAGE.read_text()
    assert page == architecture.page_with(architecture.picture(), page), "run scripts/architecture.py"


def test_no_module_imports_itself_in_a_circle():
    graph = {name: architecture.own_imports(tree, MODULES) - {name} for name, tree in MODULES.items() if name}
    packages = {name.partition(".")[0] for name in graph if "." in name}
    # a package's __init__ hands on what its modules define; that they name the package is no circle
    graph = {name: {other for other in below if other not in packages} for name, below in graph.items()}
    architecture.floors(graph)


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"cli"}))
def test_functions_import_nothing_but_heavy_parts_of_others(module):
    roots = {name.partition(".")[0] for name in imported_in_functions(MODULES[module])}
    assert roots <= HEAVY, f"{module} imports {roots - HEAVY} inside functions"


@pytest.mark.parametrize("package", sorted({name.partition(".")[0] for name in MODULES if "." in name}))
def test_an_init_hands_on_and_defines_nothing(package):
    kinds = {type(node) for node in MODULES[package].body}
    assert kinds <= {ast.Expr, ast.ImportFrom, ast.Assign}
    assert all(node.targets[0].id == "__all__" for node in MODULES[package].body if isinstance(node, ast.Assign))


@pytest.mark.parametrize("module", sorted(LIGHT))
def test_the_lowest_subject_needs_the_standard_library_and_numpy_only(module):
    roots = {name.split(".")[0] for name in architecture.imported(MODULES[module])}
    assert roots <= {*sys.stdlib_module_names, "numpy", "monai_chd"}


def test_the_bundle_holds_no_python_and_the_package_never_imports_tests_or_scripts():
    assert list(CONFIGS.parent.rglob("*.py")) == []
    for module, tree in MODULES.items():
        roots = {name.split(".")[0] for name in architecture.imported(tree)}
        assert not roots & {"tests", "conftest", "scripts", "bundle", "benchmarks"}, module


def test_no_module_is_a_drawer_of_odds_and_ends():
    drawers = {"utils", "util", "helpers", "helper", "common", "misc", "tools"}
    assert not drawers & {part for name in MODULES for part in name.split(".")}


@pytest.mark.parametrize(
    "module", sorted(name for name in MODULES if "." in name or architecture.room(name) in ("ground", "cli"))
)
def test_every_module_has_its_test_file(module):
    package, _, name = module.rpartition(".")
    assert not module or (TESTS / package / f"test_{name}.py").is_file()


def test_every_room_of_the_tests_is_a_room_of_the_package_or_the_benchmarks():
    rooms = {path.parent.relative_to(TESTS).as_posix() for path in TESTS.rglob("test_*.py")} - {"."}
    assert rooms <= {*ARROWS, "benchmarks", "bad_inputs"}


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_name_is_written_once(name):
    assert places(name, str) == {"labels": 1}


@pytest.mark.parametrize(("number", "home"), [(512, "transforms.resizing"), (200, "transforms.padding")])
def test_frame_size_and_sequence_length_are_written_once_in_the_code(number, home):
    assert places(number, int) == {home: 1}


def test_the_transforms_defaults_are_these_constants():
    from monai_chd.transforms import PadFrames, PadFramesd, ResizeFrames, ResizeFramesd

    assert ResizeFrames().frame_size == ResizeFramesd("image").step.frame_size == 512
    assert PadFrames().sequence_length == PadFramesd("image").step.sequence_length == 200


def test_the_config_of_training_writes_them_once_and_at_the_top():
    content = json.loads((CONFIGS / "train.json").read_text())
    assert (content["frame_size"], content["sequence_length"]) == (512, 200)
    assert [values_of(content).count(number) for number in (512, 200)] == [1, 1]


def values_of(content: object) -> list[object]:
    """All plain values of a config."""
    if isinstance(content, dict):
        return [value for child in content.values() for value in values_of(child)]
    return [value for child in content for value in values_of(child)] if isinstance(content, list) else [content]


def test_the_other_configs_do_not_write_them_again():
    others = [path for path in CONFIGS.glob("*.json") if path.stem not in ("train", "metadata")]
    assert len(others) >= 3
    for path in others:
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
