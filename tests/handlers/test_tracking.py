"""MLflow is told settings, figures with intervals, pictures and the model by the bundle's own runs; nothing without it."""

import json
from pathlib import Path

import pytest
from ignite.engine import Engine
from monai.bundle import run
from tiny_training import SMALL

from monai_chd.cli import main
from monai_chd.errors import UserError
from monai_chd.handlers import Tracked
from monai_chd.handlers.tracking import figures_of, tracker_of

mlflow = pytest.importorskip("mlflow")

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"
SIZES = dict(zip((word[2:] for word in SMALL[::2]), map(int, SMALL[1::2]), strict=True))


def run_tracked(names: list[str], out: Path, datalist: Path, **keys) -> None:
    places = {"bundle_root": str(BUNDLE), "datalist": str(datalist), "output_dir": str(out)}
    store = {"tracking": "mlflow", "tracking_uri": f"sqlite:///{out.parent / 'mlruns.db'}"}
    configs = [str(BUNDLE / "configs" / f"{name}.json") for name in names]
    run(config_file=configs, logging_file=False, **places, **store, **keys)


@pytest.mark.filterwarnings("ignore")
def test_two_trainings_and_an_evaluation_can_be_compared(datalist, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_tracked(["train"], tmp_path / "out1", datalist, max_epochs=1, seed=1, **SIZES)
    run_tracked(["train", "evaluate"], tmp_path / "out1", datalist)
    run_tracked(["train"], tmp_path / "out2", datalist, max_epochs=1, seed=2, **SIZES)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlruns.db'}")
    experiment = client.get_experiment_by_name("monai_experiment").experiment_id
    runs = sorted(client.search_runs(experiment), key=lambda one: one.info.start_time)
    assert [one.info.status for one in runs] == ["FINISHED"] * 3, "none is left for the next one to go on in"
    for seed, one in zip((1, 2), runs[::2], strict=True):
        assert not [name for name in one.data.metrics if name.startswith("test_")]
        assert one.data.params["seed"] == str(seed) and json.loads(one.data.params["window"]) == [-200, 900]
        assert {"train_loss", "val_macro_f1"} <= set(one.data.metrics)
        kept = {file.path for file in client.list_artifacts(one.info.run_id)}
        assert {"model.pt", "settings.json", "learning_curves.png"} <= kept
    evaluated = runs[1]
    overall = json.loads((tmp_path / "out1" / "evaluation" / "metrics.json").read_text())["result"]["overall"]
    told = evaluated.data.metrics
    assert told["test_accuracy"] == overall["accuracy"]["value"] and told["test_cases"] == overall["accuracy"]["n"]
    assert (told["test_accuracy_95_low"], told["test_accuracy_95_high"]) == (
        overall["accuracy"]["low"],
        overall["accuracy"]["high"],
    )
    kept = {file.path for file in client.list_artifacts(evaluated.info.run_id)}
    assert {"metrics.json", "confusion_matrix.png"} <= kept


@pytest.mark.filterwarnings("ignore")
def test_the_command_tracks_and_refuses_a_store_that_cannot_be_opened(datalist, tmp_path, monkeypatch, capfd):
    words = [
        "train",
        str(datalist),
        "--out",
        str(tmp_path / "out"),
        "--tracking",
        "mlflow",
        "--max_epochs",
        "1",
        *SMALL,
    ]
    (tmp_path / "file").touch()
    store = f"sqlite:///{tmp_path / 'file' / 'mlruns.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    assert main(words) == 1
    said = capfd.readouterr().err
    assert f"the tracking store {store} cannot be opened" in said and "leave out --tracking" in said
    assert not (tmp_path / "out" / "models").exists()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert main(words) == 0
    assert "tracked by MLflow: run" in capfd.readouterr().out and (tmp_path / "out" / "mlruns.db").is_file()


def test_nothing_is_done_without_a_tracker(tmp_path):
    engine = Engine(lambda engine, batch: None)
    Tracked([tmp_path / "model.pt"]).attach(engine)
    engine.run([0])
    assert tracker_of(engine) is None and figures_of(None) == figures_of(tmp_path / "metrics.json") == {}


def test_a_store_that_cannot_be_written_is_named(tmp_path):
    class Client:
        def get_run(self, run):
            raise mlflow.exceptions.MlflowException("database is locked")

    tracked = Tracked([], {"seed": 1})
    tracked._client, tracked._run = Client(), type("Run", (), {"info": type("Info", (), {"run_id": "1"})})
    with pytest.raises(UserError, match=r"the tracking store cannot be written \(database is locked\); mend it"):
        tracked.tell(Engine(lambda engine, batch: None))
