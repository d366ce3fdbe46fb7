"""Whatever is set of a chain of transforms, and whatever code it runs, is in its key; what cannot be is refused."""

import enum
import inspect
import random
import sys

import monai.transforms
import numpy as np
import pytest
import torch
from monai.transforms import Compose, Lambda, Lambdad, MapTransform, RandFlipd, Spacingd, Transform
from monai.transforms.traits import RandomizableTrait
from tiny_frames import assert_only_jpg_loss, assert_same, chain, fused, on_disk, write_cases

from monai_chd.data import FrameDataset, chain_key
from monai_chd.data.chain_key import code_key, transform_key, value_key
from monai_chd.networks import FrameEncoder
from monai_chd.networks.encoders import SmallCNN


def key_of(*steps):
    return transform_key(Compose(list(steps)))


def test_equal_transforms_have_equal_keys_and_others_do_not():
    assert transform_key(fused()) == transform_key(fused())
    others = [fused(window=(0, 1)), fused(frame_size=32), fused(sampling="first"), chain(), fused(reader="itk")]
    assert len({transform_key(transform) for transform in [fused(), *others]}) == 6


def spaced(millimetres):
    steps = chain(sequence_length=6).transforms
    return Compose([*steps[:2], Spacingd("image", pixdim=(millimetres,) * 3), *steps[2:]])


@pytest.mark.parametrize("cache", ["frames", "jpg"])
def test_frames_of_another_spacing_are_other_frames_in_one_folder(tmp_path, cache):
    cases = write_cases(tmp_path)[:1]
    for millimetres in (1.0, 2.0, 1.0):
        kept = on_disk(cache, cases, tmp_path / "kept", spaced(millimetres))[0]
        (assert_same if cache == "frames" else assert_only_jpg_loss)(kept, FrameDataset(cases, spaced(millimetres))[0])


REQUIRED = {
    "keys": ["image"], "pixdim": (1.0, 1.0, 1.0), "spatial_size": (4, 4, 4), "roi_size": (4, 4, 4), "k_divisible": 4,
    "roi_slices": [slice(0, 4)] * 3, "lower": 1, "upper": 99, "func": abs, "a_min": 0, "a_max": 1, "mask_key": "m",
}  # fmt: skip
"""Arguments that some transforms want, where 1 is none for them."""

NO_DIFFERENCE = {"track_meta", "meta_keys", "output_format", "overwrite"}
"""Arguments of which two values mean the same, and those of files that are written."""


def varied(value):
    """Other values of an argument."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, enum.Enum):
        return [other for other in type(value) if other != value][:1]
    if isinstance(value, (int, float)):
        return [value + 1, value + 0.5]
    if value is None:
        return [0.5, "a", (1, 1, 1), np.ones(3), {"mode": "bilinear"}]
    if isinstance(value, (str, tuple, list)):
        return ["constant", [2, 2, 2], ["b"]]
    return [float, max]


def arguments(kind):
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    named = [each for each in parameters if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)]
    return {each.name: REQUIRED.get(each.name, 1) if each.default is each.empty else each.default for each in named}


def keyed(kind, given):
    try:
        return key_of(kind(**given))
    except Exception:  # no such value of this argument, or refused: both are loud
        return None


def is_plain(kind):
    return inspect.isclass(kind) and issubclass(kind, MapTransform) and not issubclass(kind, RandomizableTrait)


@pytest.mark.filterwarnings("ignore")
def test_any_argument_of_any_transform_of_monai_changes_the_key():
    kinds = [kind for name, kind in vars(monai.transforms).items() if name.endswith("d") and is_plain(kind)]
    tried, same = 0, []
    for kind in kinds:
        given = arguments(kind)
        base = keyed(kind, given)
        for name, value in given.items() if base else ():
            for other in varied(value) if name not in NO_DIFFERENCE else ():
                found = keyed(kind, {**given, name: other})
                tried += found is not None
                same += [f"{kind.__name__}({name}={other!r})"] if found == base and repr(other) != repr(value) else []
    assert same == [] and tried > 500


def made(text, **names):
    """A function as a notebook makes it: of no file."""
    space = dict(names)
    exec(text, space)
    return space["function"]


def outer(number):
    return lambda x: x * number


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Lambda(lambda x: x + 1), Lambda(lambda x: x + 2)),
        (Lambda(outer(1)), Lambda(outer(2))),
        (Lambda(np.min), Lambda(np.max)),
        (Lambda(len), Lambda(abs)),
        (Lambda([3].append), Lambda([4].append)),
        (Lambda(torch.nn.ReLU()), Lambda(torch.nn.Sigmoid())),
        (Lambda(made("def function(x, y=1): return x")), Lambda(made("def function(x, y=2): return x"))),
        (Lambda(made("def function(x): return x * A", A=1)), Lambda(made("def function(x): return x * A", A=2))),
        (Lambda(made("def function(x): return (lambda: 1)")), Lambda(made("def function(x): return (lambda: 2)"))),
    ],
)  # fmt: skip
def test_another_function_is_another_key(one, other):
    assert key_of(one) != key_of(other)
    assert key_of(one) == key_of(one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0), (1, True), ("1", b"1"), ([1, 2], (1, 2)), ([[1], 2], [1, [2]]), ({"a": 1}, {"a": 2}), ({1}, {2}),
        (np.zeros(2), np.ones(2)), (np.zeros(2), np.zeros((2, 1))), (np.zeros(2), np.zeros(2, np.float32)),
        (np.array([{}, 1], object), np.array([{}, 2], object)), (torch.zeros(2), torch.ones(2)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.bfloat16)), (torch.float32, torch.float64), (slice(1), slice(2)),
        (random.Random(1), random.Random(2)), (SmallCNN, FrameEncoder), (np, torch),
    ],
)  # fmt: skip
def test_another_value_is_another_key_and_an_equal_one_the_same(one, other):
    assert value_key(one, "x") != value_key(other, "x")
    assert value_key({"deep": [one]}, "x") == value_key({"deep": [one]}, "x")


def test_what_holds_itself_has_a_key():
    one, other = [1], [2]
    one.append(one)
    other.append(other)
    assert value_key(one, "x") != value_key(other, "x")


def test_the_order_in_which_a_set_was_filled_says_nothing():
    one, other = {0, 8}, {8, 0}
    assert list(one) != list(other)
    assert value_key(one, "x") == value_key(other, "x")


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (
            Lambdad("image", (x for x in ()).send),
            "Lambdad holds a generator, which cannot be told from another; give it",
        ),
        (RandFlipd("image", prob=0.5), "RandFlipd is random, and one draw of it would be kept for ever"),
        (Compose([RandFlipd("image", prob=0.5)]), "Compose is random"),
    ],
    ids=["generator", "random", "random within"],
)
def test_what_has_no_key_is_refused_in_one_line(step, message):
    with pytest.raises(ValueError, match=message) as told:
        key_of(step)
    assert "\n" not in str(told.value)


def test_how_a_chain_applies_its_steps_is_in_its_key_and_kept_when_it_is_cached(tmp_path):
    steps = spaced(1.0).transforms
    lazy = Compose(steps, lazy=True)
    assert transform_key(lazy) != transform_key(Compose(steps))
    dataset = on_disk("frames", write_cases(tmp_path), tmp_path / "kept", lazy)
    assert dataset._files.frames.lazy is True


class Own(Transform):
    def __call__(self, data):
        return data


def test_another_code_is_another_key(monkeypatch, tmp_path):
    before = key_of(Own()), transform_key(fused())
    monkeypatch.setattr(chain_key, "code_key", lambda *packages: b"other")
    assert transform_key(fused()) != before[1]
    monkeypatch.undo()
    assert key_of(Own()) == before[0]
    file = tmp_path / "own.py"
    file.write_text("changed")
    monkeypatch.setattr(sys.modules[Own.__module__], "__file__", str(file))
    assert key_of(Own()) != before[0]


def test_the_code_is_that_of_all_that_makes_frames_and_the_versions_below_it(monkeypatch):
    read, real = [], chain_key._file_key
    monkeypatch.setattr(chain_key, "_file_key", lambda path: read.append(path.name) or real(path))
    before = code_key.__wrapped__()
    assert {"load_frames.py", "streaming.py", "resizing.py", "hu_offset.py", "nifti.py", "volume.py"} <= set(read)
    versions = chain_key.software_versions()
    for name in ("monai", "torch", "numpy"):
        monkeypatch.setattr(chain_key, "software_versions", lambda name=name: {**versions, name: "0"})
        assert code_key.__wrapped__() != before
