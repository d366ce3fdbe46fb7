"""MONAI Label serves a trained model over HTTP: a real server in an environment of its own, asked as clients ask it."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import pytest
from dicom_series import write_as_dicom
from tiny_structures import TRAINING

from monai_chd.cli import main
from monai_chd.labels import CLASSES, STRUCTURES
from monai_chd.workflow.zoo_bundle import pack

COMMAND = os.environ.get("MONAI_CHD_LABEL")
"""`monai-chd` of an environment with MONAI Label; scripts/test --hosts makes one and sets it."""

pytestmark = pytest.mark.skipif(
    not COMMAND, reason="needs MONAI Label in an environment of its own: scripts/test --hosts"
)


class Server:
    """A running server, its answers as status and content."""

    def __init__(self, url: str, process: subprocess.Popen, out: Path, scans: Path) -> None:
        self.url, self.process, self.out, self.scans = url, process, out, scans

    def ask(self, path: str, data: bytes | None = None, kind: str = "", method: str = "") -> tuple[int, bytes]:
        request = urllib.request.Request(
            self.url + path, data=data, method=method or ("GET" if data is None else "POST")
        )
        if kind:
            request.add_header("Content-Type", kind)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def json(self, *words, **settings):
        status, content = self.ask(*words, **settings)
        return status, json.loads(content)

    def form(self, path: str, method: str = "POST", **fields):
        """A form as 3D Slicer's client sends it: text fields, and files as (name, content)."""
        mark = uuid.uuid4().hex
        parts = []
        for name, value in fields.items():
            file, content = value if isinstance(value, tuple) else (None, value.encode())
            more = f'; filename="{file}"\r\nContent-Type: application/octet-stream' if file else ""
            parts.append(
                f'--{mark}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + content + b"\r\n"
            )
        body = b"".join(parts) + f"--{mark}--\r\n".encode()
        return self.ask(path, body, f"multipart/form-data; boundary={mark}", method)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def server(trained, cohort, datalist, tmp_path_factory):
    folder = tmp_path_factory.mktemp("label")
    out, scans = folder / "out", folder / "scans"
    shutil.copytree(trained, out)
    assert main(["train-structures", str(datalist), "--out", str(out), "--max_epochs", "1", *TRAINING]) == 0
    scans.mkdir()
    for scan in sorted(cohort.glob("ct_*_image.nii.gz"))[:12]:
        shutil.copy(scan, scans)
    command = [COMMAND, "label", str(scans), "--out", str(out)]
    with running(command, folder, {}) as (url, process):
        yield Server(url, process, out, scans)


@contextlib.contextmanager
def running(command, folder, environment):
    """A server, from when it answers."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with (folder / "log").open("w") as log:
        words = [*command, "--host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **environment})
        try:
            for _ in range(240):
                try:
                    urllib.request.urlopen(f"{url}/info/", timeout=60).close()
                    break
                except OSError:
                    time.sleep(0.5)
            else:
                pytest.fail((folder / "log").read_text()[-3000:])
            yield url, process
        finally:
            process.terminate()
            process.wait(30)


def scores(answer) -> list[float]:
    assert [one["label"] for one in answer["prediction"]] == list(CLASSES)
    return [one["score"] for one in answer["prediction"]]


@pytest.fixture(scope="module")
def truth(trained, server, tmp_path_factory):
    """Probabilities that the command gives, by the name of the scan."""
    import csv

    out = tmp_path_factory.mktemp("truth") / "out"
    shutil.copytree(trained, out)
    assert main(["predict", str(server.scans), "--out", str(out)]) == 0
    with (out / "inference" / "predictions.csv").open(newline="") as file:
        return {row["image"]: [float(row[name]) for name in CLASSES] for row in csv.DictReader(file)}


def test_the_models_are_listed_with_their_classes(server):
    status, info = server.json("/info/")
    assert status == 200
    assert info["models"]["chd"]["type"] == "classification"
    assert info["models"]["chd"]["labels"] == {name: index for index, name in enumerate(CLASSES)}
    assert info["models"]["chd_structures"]["type"] == "segmentation"
    assert list(info["models"]["chd_structures"]["labels"]) == list(STRUCTURES)
    assert "not a medical device" in info["description"]


def test_a_scan_of_the_folder_is_answered_as_the_command_answers(server, truth):
    for name in sorted(truth)[:3]:
        status, answer = server.json(f"/infer/chd?image={name.removesuffix('.nii.gz')}", data=b"")
        assert status == 200
        assert scores(answer) == pytest.approx(truth[name], abs=1e-5)
        assert (answer["abstain"], answer["reason"]) == (False, "")
        assert "not for diagnosis" in answer["notice"]


def test_an_upload_is_answered(server, truth):
    name = sorted(truth)[4]
    status, content = server.form(
        "/infer/chd?output=json", params="{}", file=(name, (server.scans / name).read_bytes())
    )
    assert status == 200
    assert scores(json.loads(content)) == pytest.approx(truth[name], abs=1e-5)


def test_a_dicom_series_is_answered(server, truth, tmp_path):
    name = sorted(truth)[5]
    write_as_dicom(server.scans / name, tmp_path / "series", "p")
    status, answer = server.json(f"/infer/chd?image={tmp_path / 'series'}", data=b"")
    assert status == 200
    assert scores(answer) == pytest.approx(truth[name], abs=1e-5)


def test_structures_come_as_an_image_in_the_scans_space(server, truth, tmp_path):
    import nibabel as nib

    name = sorted(truth)[0]
    status, content = server.ask(f"/infer/chd_structures?image={name.removesuffix('.nii.gz')}&output=image", data=b"")
    assert status == 200
    (tmp_path / "a.nii.gz").write_bytes(content)
    found, scan = nib.load(tmp_path / "a.nii.gz"), nib.load(server.scans / name)
    assert found.shape == scan.shape
    assert (found.affine == scan.affine).all()


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/infer/chd?image=nobody", 404, "nobody"),
        ("/infer/none?image=ct_1001_image", 404, "no model 'none'"),
        ("/infer/chd_trained?image=ct_1001_image", 422, "nothing was trained from labels here yet"),
    ],
)
def test_a_wrong_request_is_answered_with_its_reason(server, path, status, said):
    got, content = server.json(path, data=b"")
    assert got == status
    assert said in content["detail"]


def test_an_upload_that_is_no_scan_or_no_ct_is_answered_with_its_reason(server):
    status, content = server.form("/infer/chd", params="{}", file=("a.nii.gz", b"junk"))
    assert status == 422
    assert b"named .nii.gz but not gzip-compressed" in content


def test_a_request_that_is_cut_off_and_two_at_once_leave_the_server_going(server, truth):
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as one:
        head = "POST /infer/chd HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=a\r\nContent-Length: 9999"
        one.sendall(f"{head}\r\n\r\n--a".encode())
    names, answers = sorted(truth)[:4], {}

    def ask(name):
        answers[name] = server.json(f"/infer/chd?image={name.removesuffix('.nii.gz')}", data=b"")[1]

    threads = [threading.Thread(target=ask, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in names:
        assert scores(answers[name]) == pytest.approx(truth[name], abs=1e-5)


def test_labels_are_taken_a_model_is_trained_from_them_and_answers(server, truth):
    """Last, since it changes what the server has: submit classes, train an epoch, ask the new model."""
    before = (server.out / "models" / "model.pt").read_bytes()
    for number, name in enumerate(sorted(truth)):
        label = json.dumps({"label": CLASSES[number % 3]}).encode()
        path = f"/datastore/label?image={name.removesuffix('.nii.gz')}&tag=final"
        status, content = server.form(path, "PUT", params="{}", label=("label.json", label))
        assert status == 200, content
    request = json.dumps({"model": "chd", "max_epochs": 1, "folds": 2, "device": "cpu"}).encode()
    status, content = server.ask("/train/chd", request, "application/json")
    assert status == 200, content
    for _ in range(240):
        status, found = server.json("/info/")
        if "chd_trained" in found["models"]:
            break
        time.sleep(0.5)
    else:
        pytest.fail(str(server.ask("/logs/?lines=80")[1][-3000:]))
    status, answer = server.json(f"/infer/chd_trained?image={sorted(truth)[0].removesuffix('.nii.gz')}", data=b"")
    assert status == 200
    assert sum(scores(answer)) == pytest.approx(1)
    assert (server.out / "models" / "model.pt").read_bytes() == before


def test_the_built_bundle_answers_in_the_stock_app(evaluated, truth, server, tmp_path):
    """MONAI Label's own app for bundles: it lower-cases the names of classes, and knows no calibration; this model has none."""
    root = pack(evaluated, tmp_path / "dist")
    samples = next(Path(COMMAND).parents[1].glob("monailabel/sample-apps"))
    shutil.copytree(samples / "monaibundle", tmp_path / "app")
    shutil.copytree(root, tmp_path / "app" / "model" / root.name)
    python = str(Path(COMMAND).with_name("python"))
    command = [
        python,
        "-m",
        "monailabel.main",
        "start_server",
        "--app",
        str(tmp_path / "app"),
        "--studies",
        str(server.scans),
    ]
    command += ["--conf", "models", root.name, "--conf", "sam2", "false"]
    name = sorted(truth)[0]
    # any value but its default: that would ask a server for the zoo's list
    with running(command, tmp_path, {"BUNDLE_DOWNLOAD_SRC": "github"}) as (url, process):
        stock = Server(url, process, tmp_path, server.scans)
        status, answer = stock.json(f"/infer/{root.name}?image={name.removesuffix('.nii.gz')}", data=b"")
    assert status == 200
    assert [one["label"] for one in answer["prediction"]] == [label.lower() for label in CLASSES]
    assert [one["score"] for one in answer["prediction"]] == pytest.approx(truth[name], abs=1e-5)
