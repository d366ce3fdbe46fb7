import copy
import csv
import hashlib
import json
import multiprocessing
import shutil
import struct
import sys

import pytest
import torch
from monai.data import DataLoader, MetaTensor
from monai.transforms import Compose, RandFlipd
from tiny_cohort import write_cohort
from tiny_frames import LENGTH, assert_same_meta, chain, files_of, fused, one_core, only, write_cases, write_scan
from torch import Tensor, nn

from monai_chd.cli import main
from monai_chd.data import FrameDataset, feature_cache
from monai_chd.data.feature_cache import FeatureFiles, encoder_key
from monai_chd.files import replacing
from monai_chd.networks import CNNLSTM, ENCODERS, FrameEncoder, SmallCNN


class CountingCNN(nn.Module):
    """Counts the frames it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, stride=2)
        self._read = 0

    def forward(self, images: Tensor) -> Tensor:
        self._read += images.shape[0]
        return self.conv(images).relu()


def frozen(network: nn.Module | None = None, **settings) -> FrameEncoder:
    torch.manual_seed(0)
    encoder = FrameEncoder(network or CountingCNN(), trainable=False, **settings)
    encoder.network._read = 0
    return encoder


@pytest.fixture
def cases(tmp_path):
    """A short scan, one longer than the sequence, a cine."""
    return write_cases(tmp_path)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "features"


@pytest.fixture(scope="module")
def small_datalist(tmp_path_factory):
    """18 patients, two folds, a third held out."""
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder / "scans", 18)
    words = ["prepare", str(folder / "scans"), "--out", str(folder / "work")]
    assert main([*words, "--folds", "2", "--test-fraction", "0.33"]) == 0
    return folder / "work" / "datalist.json"


def dataset(cases, folder, encoder, transform=None, cache="features"):
    return FrameDataset(cases, transform or chain(), cache=cache, cache_dir=folder, encoder=encoder)


def features_of(folder):
    return {name: time for name, time in files_of(folder).items() if name != ".features.lock"}


def direct(item, encoder):
    """What the encoder says of padded frames."""
    return encoder.eval()(item["image"].as_tensor()[None], torch.tensor([item["num_frames"]]))[0]


@pytest.mark.parametrize("transform", [chain, fused])
def test_item_is_what_the_encoder_gives_of_the_real_frames_and_zeros(cases, folder, transform):
    encoder = frozen()
    cached, plain = dataset(cases, folder, encoder, transform()), FrameDataset(cases, transform())
    for index, real in enumerate((6, LENGTH, 5)):
        item, frames = cached[index], plain[index]
        assert item["image"].shape == (LENGTH, 6) and item["image"].dtype == torch.float32
        assert torch.equal(item["image"].as_tensor(), direct(frames, encoder))
        assert item["num_frames"] == real and not item["image"][real:].any() and item["image"][:real].any()


def test_everything_but_the_values_is_as_without_a_cache(cases, folder):
    cached, plain = dataset(cases, folder, frozen()), FrameDataset(cases, chain())
    for index in range(3):
        assert only(cached[index]) == only(plain[index]) and sorted(cached[index]) == sorted(plain[index])
        assert_same_meta(cached[index]["image"], plain[index]["image"])


def test_padding_takes_no_room_on_disk(cases, folder):
    dataset(cases[:1], folder, frozen(), chain(sequence_length=4000))
    [file] = folder.glob("*.features")
    notes = len(json.dumps([-1] * 4000)) + 1000
    assert 6 * 6 * 4 < file.stat().st_size < 6 * 6 * 4 + notes


def test_a_network_says_the_same_of_features_as_of_frames(cases, folder):
    torch.manual_seed(0)
    network = CNNLSTM(frozen(), hidden_size=8, bidirectional=True).eval()
    batches = [
        next(iter(DataLoader(dataset(cases, folder, network.encoder, cache=c), batch_size=3)))
        for c in ("features", "none")
    ]
    logits = [network(batch["image"], batch["num_frames"]) for batch in batches]
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=1e-6)
    assert list(batches[0]["image"].meta["filename_or_obj"]) == [case["image"] for case in cases]


def test_a_case_is_encoded_once_for_all_datasets_and_epochs(cases, folder):
    encoder = frozen()
    for _ in range(2):
        cached = dataset(cases, folder, encoder)
        for index in (0, 1, 2, 0):
            cached[index]
    assert encoder.network._read == 6 + LENGTH + 5 and len(features_of(folder)) == 3


def test_encoding_leaves_the_modes_of_the_modules_alone(cases, folder):
    encoder = frozen()
    encoder.network.conv.train()
    modes = [module.training for module in encoder.modules()]
    assert any(modes) and not all(modes)
    dataset(cases, folder, encoder)
    assert [module.training for module in encoder.modules()] == modes


class Dropping(CountingCNN):
    """Says something else in training."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(images), 0.5, self.training)


def test_encoder_works_in_evaluation_mode(cases, folder):
    encoder = frozen(Dropping())
    encoder.network.train()
    item = dataset(cases, folder, encoder)[0]
    assert torch.equal(item["image"].as_tensor(), direct(FrameDataset(cases, chain())[0], encoder))


@pytest.mark.parametrize(
    "change",
    [{"window": (0, 500)}, {"frame_size": 20}, {"sequence_length": 9}, {"sampling": "first"}, {"hu_offset": 3}],
)
def test_another_transform_has_features_of_its_own(cases, folder, change):
    encoder = frozen()
    dataset(cases, folder, encoder)
    changed = dataset(cases, folder, encoder, chain(**change))[1]
    assert torch.equal(changed["image"].as_tensor(), direct(FrameDataset(cases, chain(**change))[1], encoder))
    assert len(features_of(folder)) == 6


@pytest.mark.parametrize(("index", "own"), [(0, {"hu_offset": 150}), (2, {"cine_slice": 0})])
def test_settings_of_the_case_itself_count(cases, folder, index, own):
    encoder = frozen()
    dataset(cases, folder, encoder)
    cases[index] |= own
    item = dataset(cases, folder, encoder)[index]
    assert torch.equal(item["image"].as_tensor(), direct(FrameDataset(cases, chain())[index], encoder))
    assert not set(own) & set(item) and len(features_of(folder)) == 4


def test_other_weights_have_features_of_their_own(cases, folder):
    encoder = frozen()
    cached = dataset(cases, folder, encoder)
    before = cached[0]["image"].as_tensor()
    state = copy.deepcopy(encoder.state_dict())
    encoder.load_state_dict({name: 2 * value for name, value in state.items()})
    after = cached[0]["image"].as_tensor()
    assert torch.equal(after, direct(FrameDataset(cases, chain())[0], encoder)) and not torch.equal(before, after)
    encoder.load_state_dict(state)
    encoder.network._read = 0
    assert torch.equal(cached[0]["image"].as_tensor(), before) and encoder.network._read == 0


def test_equal_weights_in_another_architecture_have_features_of_their_own(cases, folder):
    other = CountingCNN()
    other.conv.stride = (1, 1)
    one, two = frozen(), frozen(other)
    two.load_state_dict(one.state_dict())
    item, changed = dataset(cases, folder, one)[0], dataset(cases, folder, two)[0]
    assert not torch.equal(item["image"].as_tensor(), changed["image"].as_tensor())
    assert torch.equal(changed["image"].as_tensor(), direct(FrameDataset(cases, chain())[0], two))


@pytest.mark.parametrize("same", [{"chunk_size": 3}, {"precision": "float32"}])
def test_what_changes_no_feature_changes_no_key(same):
    encoder = frozen()
    encoder.train()
    assert encoder_key(frozen(**same)) == encoder_key(encoder)


def test_precision_counts_where_the_processor_has_it(cases, folder, monkeypatch):
    exact = dataset(cases, folder, frozen())[0]["image"].as_tensor()
    monkeypatch.setattr("monai_chd.networks.encoders.has_bfloat16", lambda device: False)
    same = dataset(cases, folder, frozen(precision="bfloat16"))[0]["image"].as_tensor()
    assert torch.equal(exact, same) and len(features_of(folder)) == 3
    monkeypatch.setattr("monai_chd.networks.encoders.has_bfloat16", lambda device: True)
    rounded = dataset(cases, folder, frozen(precision="bfloat16"))[0]["image"].as_tensor()
    assert rounded.dtype == torch.float32 and not torch.equal(exact, rounded) and len(features_of(folder)) == 6
    torch.testing.assert_close(exact, rounded, rtol=0.02, atol=0.02)


def test_another_version_of_the_code_makes_them_again(cases, folder, monkeypatch):
    dataset(cases, folder, frozen())
    monkeypatch.setattr(feature_cache, "code_key", lambda *packages: b"of another version")
    encoder = frozen()
    dataset(cases, folder, encoder)
    assert encoder.network._read > 0 and len(features_of(folder)) == 6


def sha256(path):
    return hashlib.sha256(feature_cache.Path(path).read_bytes()).hexdigest()


@pytest.mark.parametrize("stated", [False, True])
def test_a_scan_that_changes_is_encoded_again(cases, folder, stated):
    encoder = frozen()
    case = cases[0]
    if stated:
        case["sha256"] = sha256(case["image"])
    before = dataset([case], folder, encoder)[0]
    path = write_scan(feature_cache.Path(case["image"]), seed=9)
    after = dataset([case], folder, encoder)[0]
    assert torch.equal(after["image"].as_tensor(), direct(FrameDataset([case], chain())[0], encoder))
    assert not torch.equal(before["image"].as_tensor(), after["image"].as_tensor()) and path.exists()


@pytest.mark.parametrize("stated", [False, True])
def test_a_copy_of_a_scan_shares_its_features(cases, folder, tmp_path, stated):
    encoder = frozen()
    case = cases[0]
    digest = sha256(case["image"])
    other = {**case, "image": shutil.copyfile(case["image"], tmp_path / "copy.nii.gz")}
    if stated:
        case["sha256"] = other["sha256"] = digest
    one = dataset([case], folder, encoder)[0]
    encoder.network._read = 0
    two = dataset([other], folder, encoder)[0]
    assert encoder.network._read == 0 and torch.equal(one["image"].as_tensor(), two["image"].as_tensor())
    assert two["image"].meta["filename_or_obj"] == str(other["image"])


def cut(content):
    return content[: len(content) // 2]


def emptied(content):
    return b""


def flipped(content):
    return content[:-1] + bytes([content[-1] ^ 1])


def flipped_note(content):
    return content[:30] + bytes([content[30] ^ 1]) + content[31:]


def longer(content):
    return content + b"\0"


def endless(content):
    return content[:12] + b"\xff" * 8 + content[20:]


def other_file(content):
    return struct.pack("<8sIQ", b"CHDFEAT0", 0, 2) + b"{}"


@pytest.mark.parametrize("damage", [cut, emptied, flipped, flipped_note, longer, endless, other_file])
def test_a_damaged_file_is_written_again(cases, folder, damage):
    encoder = frozen()
    cached = dataset(cases[:1], folder, encoder)
    sound = cached[0]["image"].as_tensor()
    [file] = folder.glob("*.features")
    content = file.read_bytes()
    file.write_bytes(damage(content))
    assert torch.equal(cached[0]["image"].as_tensor(), sound)
    assert file.read_bytes() == content and encoder.network._read == 12


@pytest.mark.parametrize("bits", [0x01, 0x10, 0xFF])
def test_no_byte_of_a_file_can_change_unnoticed(cases, folder, bits):
    files = dataset(cases[:1], folder, frozen())._files
    [place] = folder.glob("*.features")
    content = bytearray(place.read_bytes())
    end = content.index(b"}") + 1
    assert files._open(place) is not None
    for index in [*range(end + 8), *range(len(content) - 8, len(content))]:
        content[index] ^= bits
        place.write_bytes(content)
        assert files._open(place) is None, index
        content[index] ^= bits
    place.write_bytes(content)
    assert files._open(place) is not None


def test_writing_that_fails_leaves_nothing(cases, folder, monkeypatch):
    def full(path):
        with replacing(path) as temporary:
            yield temporary
            raise OSError("disk full")

    monkeypatch.setattr(feature_cache, "replacing", feature_cache.contextmanager(full))
    with pytest.raises(OSError, match="disk full"):
        dataset(cases[:1], folder, frozen())
    assert features_of(folder) == {}


def fill_in_process(cases, folder, queue):
    torch.set_num_threads(1)
    encoder = frozen()
    dataset(cases, folder, encoder)
    queue.put(encoder.network._read)


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_processes_that_fill_one_folder_share_the_work(cases, folder):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=fill_in_process, args=(cases, folder, queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert sum(queue.get() for _ in workers) == 6 + LENGTH + 5
    assert len(features_of(folder)) == 3


def test_a_bar_counts_what_is_encoded_and_is_not_shown_when_nothing_is(cases, folder, capsys):
    dataset(cases[:1], folder, frozen())
    capsys.readouterr()
    dataset(cases, folder, frozen())
    assert "encoding frames: 100%" in (text := capsys.readouterr().err) and "2/2" in text
    dataset(cases, folder, frozen()).fill()
    assert capsys.readouterr().err == ""


@one_core
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_from_workers_equal_those_of_one_process(cases, folder, workers):
    cached = dataset(cases, folder, frozen())
    batch = next(iter(DataLoader(cached, batch_size=3, num_workers=workers)))
    assert isinstance(batch["image"], MetaTensor) and batch["num_frames"].tolist() == [6, LENGTH, 5]
    for index in range(3):
        assert torch.equal(batch["image"][index].as_tensor(), cached[index]["image"].as_tensor())


def test_an_unreadable_scan_is_named_at_once(cases, folder):
    feature_cache.Path(cases[1]["image"]).write_bytes(b"no scan")
    with pytest.raises(ValueError, match="ct_1002_image"):
        dataset(cases, folder, frozen())
    shutil.rmtree(folder)
    feature_cache.Path(cases[1]["image"]).unlink()
    with pytest.raises(FileNotFoundError, match="ct_1002_image"):
        dataset(cases, folder, frozen())


def test_what_cannot_be_kept_is_refused(cases, folder):
    with pytest.raises(
        ValueError, match="this encoder is trained; take a frozen one, such as --encoder efficientnet_lite0"
    ):
        dataset(cases, folder, FrameEncoder(SmallCNN()))
    with pytest.raises(ValueError, match="needs a network with a frame encoder, came NoneType"):
        dataset(cases, folder, None)
    with pytest.raises(ValueError, match="RandFlipd is random, and one draw of it would be kept for ever"):
        dataset(cases, folder, frozen(), Compose([*chain().transforms, RandFlipd("image", prob=0.5)]))
    with pytest.raises(ValueError, match="'features' needs a folder, cache_dir"):
        FrameDataset(cases, chain(), cache="features", encoder=frozen())
    with pytest.raises(ValueError, match="skip_unreadable works with cache 'none' only"):
        FrameDataset(cases, chain(), cache="features", cache_dir=folder, encoder=frozen(), skip_unreadable=True)


def test_training_on_features_is_the_training_on_frames(small_datalist, tmp_path, monkeypatch):
    """The same losses in every epoch; and the model predicts from scans without any cache."""
    monkeypatch.setitem(ENCODERS, "frozen_cnn", frozen)
    words = ["--encoder", "frozen_cnn", "--frame_size", "16", "--sequence_length", "8", "--max_epochs", "2"]
    losses = {}
    for cache in ("none", "features"):
        out = tmp_path / cache
        assert main(["train", str(small_datalist), "--out", str(out), "--cache", cache, *words]) == 0
        with (out / "learning_curves.csv").open() as file:
            losses[cache] = [float(row["train_loss"]) for row in csv.DictReader(file)]
    assert losses["features"] == pytest.approx(losses["none"], abs=1e-5) and len(losses["none"]) == 2
    assert len(list((tmp_path / "features" / "cache").glob("*.features"))) > 0
    assert main(["evaluate", str(small_datalist), "--out", str(tmp_path / "features")]) == 0
    monkeypatch.setattr(FeatureFiles, "load", lambda *_: pytest.fail("taken from the cache"))
    assert main(["evaluate", str(small_datalist), "--out", str(tmp_path / "features")]) == 0


def test_the_cache_command_fills_what_a_training_needs(small_datalist, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(ENCODERS, "frozen_cnn", frozen)
    words = ["--encoder", "frozen_cnn", "--frame_size", "16", "--sequence_length", "8"]
    cache, folder = ["cache", str(small_datalist), "--format", "features"], tmp_path / "kept"
    assert main([*cache, "--out", str(folder), *words]) == 0
    assert f"features: {folder}" in capsys.readouterr().out
    written = features_of(folder)
    train = ["train", str(small_datalist), "--out", str(tmp_path / "out"), "--max_epochs", "1"]
    assert main([*train, "--cache", "features", "--cache_dir", str(folder), *words]) == 0
    assert features_of(folder) == written and len(written) == 18
    assert main([*cache, "--out", str(tmp_path / "other"), *words[2:]]) == 1
    assert "this encoder is trained" in capsys.readouterr().err
