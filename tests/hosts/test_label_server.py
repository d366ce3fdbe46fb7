"""The command that starts MONAI Label: on this machine only, and nothing without a model, scans or MONAI Label."""

import importlib.util
import os

import pytest

from monai_chd.cli import main
from monai_chd.hosts import label_server
from monai_chd.hosts.label_server import serve, server_command


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())


def test_the_server_listens_on_this_machine_only_unless_told_otherwise(
    installed, trained, tmp_path, monkeypatch, capsys
):
    started = []
    monkeypatch.setattr(os, "execv", lambda program, words: started.append(words))
    (tmp_path / "out" / "models").mkdir(parents=True)
    (tmp_path / "out" / "models" / "model.pt").touch()
    assert main(["label", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert started[0][-4:] == ["--host", "127.0.0.1", "--port", "8000"]
    assert "no password" not in capsys.readouterr().out
    serve(tmp_path, tmp_path / "out", "0.0.0.0", 9000)
    assert (
        "anybody who reaches 0.0.0.0:9000 can read every file that this user can: there is no password"
        in capsys.readouterr().out
    )
    assert (tmp_path / "out" / "label_app" / "main.py").read_text() == label_server.MAIN


def test_without_monai_label_a_model_or_scans_it_says_so(tmp_path, trained, monkeypatch, installed):
    with pytest.raises(FileNotFoundError, match="no such folder of scans"):
        server_command(tmp_path / "none", trained, "127.0.0.1", 8000)
    with pytest.raises(FileNotFoundError, match="no trained model; train one into this folder first"):
        server_command(tmp_path, tmp_path, "127.0.0.1", 8000)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"MONAI Label is not installed here; docs/monai_label\.md says how"):
        server_command(tmp_path, trained, "127.0.0.1", 8000)


def test_the_app_that_is_written_is_python():
    compile(label_server.MAIN, "main.py", "exec")
