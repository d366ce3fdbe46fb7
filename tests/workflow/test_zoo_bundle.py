"""A packed bundle is complete, true, the same every time, and knows no patient by name; what cannot be packed is said."""

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from jsonschema import Draft7Validator
from monai.bundle import load

from monai_chd.labels import CLASSES
from monai_chd.workflow import zoo_bundle
from monai_chd.workflow.zoo_bundle import NAME, pack, write_archive

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def bundle(evaluated, tmp_path_factory) -> Path:
    return pack(evaluated, tmp_path_factory.mktemp("dist"))


def metadata_of(root: Path) -> dict:
    return json.loads((root / "configs" / "metadata.json").read_text())


def test_a_bundle_holds_configs_weights_documents_and_the_package(bundle):
    package = {path.relative_to(TESTS.parent) for path in (TESTS.parent / "monai_chd").rglob("*.py")}
    assert {path.relative_to(bundle) for path in (bundle / "monai_chd").rglob("*.py")} == package
    needed = "LICENSE docs/README.md docs/data_license.txt models/model.pt models/model.ts models/settings.json"
    assert all((bundle / name).is_file() for name in [*needed.split(), "configs/train.json", "configs/logging.conf"])
    assert not list(bundle.rglob("__pycache__")) and not list(bundle.parent.glob(".*"))


def test_its_metadata_keeps_the_schema_and_has_the_figures_of_the_evaluation(bundle, evaluated):
    metadata = metadata_of(bundle)
    schema = json.loads((TESTS / "data" / "meta_schema.json").read_text())
    assert [error.message for error in Draft7Validator(schema).iter_errors(metadata)] == []
    overall = json.loads((evaluated / "evaluation" / "metrics.json").read_text())["result"]["overall"]
    told = metadata["eval_metrics"]
    for name in ("accuracy", "macro_f1"):
        assert told[name] == overall[name]["value"]
        assert told[f"{name}_95_interval"] == [overall[name]["low"], overall[name]["high"]]
    assert told["cases"] == overall["accuracy"]["n"] and "synthetic" in told["data"]
    assert metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] == [10, 24, 24]
    assert metadata["model"]["classes"] == list(CLASSES) and metadata["model"]["frame_size"] == 24


def test_its_readme_says_first_what_the_weights_are_and_are_not(bundle):
    text = (bundle / "docs" / "README.md").read_text()
    assert "trained on synthetic hearts alone" in text.split("## ")[0] and "Not a medical device" in text[:300]
    assert "| accuracy | " in text and "<!--" not in text


@pytest.mark.filterwarnings("ignore:.*trust.*:UserWarning")
def test_monai_loads_it_with_all_its_weights_and_no_data(bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = load(NAME, bundle_dir=str(bundle.parent), device="cpu")
    weights = torch.load(bundle / "models" / "model.pt", weights_only=True)
    assert network.state_dict().keys() == weights.keys()
    assert all(torch.equal(network.state_dict()[name], value) for name, value in weights.items())
    assert list(tmp_path.iterdir()) == []


def test_it_finds_its_own_package_and_configs(bundle, tmp_path):
    code = "from monai_chd.workflow.run import bundle_folder; print(bundle_folder())"
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, cwd=tmp_path, env={"PYTHONPATH": str(bundle)}, capture_output=True, text=True)
    assert done.stdout.strip() == str(bundle), done.stderr


def test_no_patient_is_known_by_name(bundle, datalist):
    trained_on = json.loads((bundle / "models" / "trained_on.json").read_text())
    assert trained_on["patient"] == [] and trained_on["voxels"]
    assert not (set(trained_on["voxels"]) & {record["voxels"] for record in json.loads(datalist.read_text())["test"]})


def test_the_archive_is_the_same_bytes_every_time(bundle, evaluated, tmp_path):
    again = pack(evaluated, tmp_path)
    first, second = (next(root.parent.glob("*.zip")) for root in (bundle, again))
    assert first.name == second.name and first.read_bytes() == second.read_bytes()
    names = zipfile.ZipFile(first).namelist()
    assert names == sorted(names) and all(name.startswith(f"{NAME}/") for name in names)
    place = str(TESTS.parent).encode()
    assert not [name for name in names if place in zipfile.ZipFile(first).read(name)]


def test_a_preset_is_recognised_and_goes_whole_into_the_training_config(bundle, tmp_path):
    preset = json.loads((bundle / "configs" / "preset_fast.json").read_text())
    copy = tmp_path / NAME
    shutil.copytree(bundle / "configs", copy / "configs")
    shutil.copy(TESTS.parent / "bundle" / "configs" / "train.json", copy / "configs")
    (copy / "models").mkdir()
    settings = {key: value for key, value in preset.items() if "#" not in key}
    (copy / "models" / "settings.json").write_text(json.dumps(settings))
    zoo_bundle._write_config(copy)
    config = json.loads((copy / "configs" / "train.json").read_text())
    assert config["encoder"] == "structures" and config["optimizer"]["_target_"] == preset["optimizer#_target_"]


def test_a_large_file_is_named_with_its_address_and_digest(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo_bundle, "LARGEST", 100)
    building = tmp_path / "building"
    (building / "models").mkdir(parents=True)
    (building / "models" / "model.pt").write_bytes(b"x" * 101)
    with pytest.raises(ValueError, match=r"models/model\.pt: over 25 MB, which the zoo does not take; say where"):
        zoo_bundle._set_large_files_apart(building, None)
    zoo_bundle._set_large_files_apart(building, "https://example.org/files")
    assert not (building / "models" / "model.pt").exists() and (tmp_path / "large_files/models/model.pt").is_file()
    (named,) = json.loads((building / "large_files.yml").read_text())["large_files"]
    digest = hashlib.sha256(b"x" * 101).hexdigest()
    expected = {"path": "models/model.pt", "url": "https://example.org/files/models/model.pt"}
    assert named == {**expected, "hash_val": digest, "hash_type": "sha256"}


def test_the_card_for_hugging_face_stands_at_the_top(evaluated, tmp_path):
    root = pack(evaluated, tmp_path, huggingface_url="https://huggingface.co/someone/chd")
    assert (root / "README.md").read_text().startswith("---\nlicense: apache-2.0\n")
    assert json.loads((root / "metadata.json").read_text()) == metadata_of(root)
    assert metadata_of(root)["huggingface_url"] == "https://huggingface.co/someone/chd"


def test_what_cannot_be_packed_is_said(evaluated, tmp_path):
    with pytest.raises(FileNotFoundError, match="no trained model to pack"):
        pack(tmp_path / "nothing", tmp_path / "dist")
    out = tmp_path / "out"
    shutil.copytree(evaluated, out)
    weights = torch.load(out / "models" / "model.pt", weights_only=True)
    torch.save({f"network.{name}": value for name, value in weights.items()}, out / "models" / "model.pt")
    with pytest.raises(ValueError, match="weights of another network"):
        pack(out, tmp_path / "dist")
    torch.save(weights, out / "models" / "model.pt")
    first = next(iter(weights))
    torch.save({**weights, first: weights[first] + 1}, out / "models" / "model.pt")
    with pytest.raises(ValueError, match="the figures of other weights than"):
        pack(out, tmp_path / "dist")
    torch.save(weights, out / "models" / "model.pt")
    shutil.rmtree(out / "evaluation")
    with pytest.raises(FileNotFoundError, match="no evaluation, and a bundle says how good its model is"):
        pack(out, tmp_path / "dist")
    (out / "models" / "settings.json").unlink()
    with pytest.raises(ValueError, match="nobody knows what the weights are of"):
        pack(out, tmp_path / "dist")
    assert not (tmp_path / "dist").exists()


def test_class_names_that_differ_are_refused(bundle, evaluated, tmp_path):
    copy = tmp_path / NAME
    shutil.copytree(bundle, copy)
    path = copy / "configs" / "metadata.json"
    path.write_text(path.read_text().replace('"0": "Cyanotic"', '"0": "Normal"'))
    with pytest.raises(ValueError, match="the classes are Normal, Non-Cyanotic, Normal, of the network Cyanotic"):
        zoo_bundle._write_metadata(copy, zoo_bundle._metrics(evaluated), None)


def test_an_archive_ignores_when_and_with_what_rights_its_files_were_made(tmp_path):
    root = tmp_path / "one"
    root.mkdir()
    (root / "b.txt").write_text("b")
    (root / "a.txt").write_text("a")
    first = write_archive(root, tmp_path / "first.zip").read_bytes()
    (root / "a.txt").write_text("a")
    (root / "a.txt").chmod(0o600)
    assert write_archive(root, tmp_path / "second.zip").read_bytes() == first
