"""The ablation shares structure networks between variants that read the same frames, and tables each against the first."""

import json

import pytest
from tiny_structures import CROSSVAL, write_phantom

from benchmarks import ablation

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")  # MONAI says so of every config
OWN = [word for word in CROSSVAL if word not in ("--quick", "--no-controls")]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablation")
    datalist = write_phantom(folder, 12, 0)
    variants = {
        "fast": ("one head", ablation.WHOLE, [*OWN, "--no-controls"]),
        "both": ("three and the summary", ablation.WHOLE, [*OWN, "--heads", "3", "--summary", "true"]),
    }
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ablation, "VARIANTS", variants)
        assert ablation.main([str(datalist), str(folder / "out")]) == 0
        rows = ablation.rows(folder / "out")
    return folder / "out", rows


def test_structure_networks_are_trained_once_for_all_that_read_the_same_frames(done):
    out, _ = done
    assert (
        (out / "both" / "structures").resolve()
        == (out / "fast" / "structures").resolve()
        == out / "whole_frames" / "structures"
    )
    seconds = [
        json.loads((out / name / "report.json").read_text())["provenance"]["seconds"] for name in ("fast", "both")
    ]
    assert seconds[1]["structures"] < seconds[0]["structures"] / 2


def test_each_variant_is_a_row_held_against_the_first(done):
    out, rows = done
    assert [row[0] for row in rows] == ["one head", "three and the summary"]
    report = json.loads((out / "both" / "report.json").read_text())
    accuracy = report["results"]["all"]["overall"]["accuracy"]
    assert rows[1][1].startswith(f"{accuracy['value']:.3f} [") and rows[1][1].endswith("n=12")
    assert rows[0][3] == "" and "percentage points [95% interval" in rows[1][3]
    assert report["against"]["other"] == str(out / "fast")
    text = (out / "ablation.md").read_text().splitlines()
    assert len(text) == 4 and text[0].startswith("| what | accuracy | macro-F1 | against `fast` |")


def test_an_unknown_variant_is_refused(capsys, tmp_path):
    with pytest.raises(SystemExit):
        ablation.main(["d.json", str(tmp_path), "magic"])
    assert "no variant magic; there are fast, scratch, lite0" in capsys.readouterr().err


def test_a_cross_validation_that_fails_ends_it(tmp_path, capsys):
    assert ablation.main([str(tmp_path / "none.json"), str(tmp_path / "out"), "lite0"]) == 1
    assert "none.json" in capsys.readouterr().err
