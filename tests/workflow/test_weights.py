"""A file that holds no weights, or those of another network, is one line that says what it is."""

import re
from collections import OrderedDict

import pytest
import torch
from torch import nn

from monai_chd.errors import UserError, UserFileError
from monai_chd.workflow.weights import load_weights, read_checkpoint


@pytest.fixture
def path(tmp_path):
    """Weights of a network of two tensors."""
    torch.save(nn.Linear(2, 3).state_dict(), tmp_path / "model.pt")
    return tmp_path / "model.pt"


def test_a_network_gets_the_weights_of_either_file(path):
    one, other, third = nn.Linear(2, 3), nn.Linear(2, 3), nn.Linear(2, 3)
    load_weights(one, path)
    torch.save({"network": one.state_dict(), "epoch": 3}, path.with_name("last.pt"))
    load_weights(other, path.with_name("last.pt"))
    assert torch.equal(one.weight, other.weight) and not torch.equal(one.weight, third.weight)


def pointer(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:01\nsize 2374725\n")


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def empty(path):
    path.write_bytes(b"")


def damaged(path):
    content = bytearray(path.read_bytes())
    content[10:200] = bytes(190)
    path.write_bytes(content)


def text(path):
    path.write_text("<!doctype html><title>Sign in</title>")


def module(path):
    torch.save(nn.Linear(2, 3), path)


def tensor(path):
    torch.save(torch.zeros(3), path)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (pointer, "a Git LFS pointer in place of the weights; fetch them with git lfs pull"),
        (cut, "no weights, or cut or damaged ones; take it again from where the model was trained"),
        (empty, "no weights, or cut or damaged ones"),
        (damaged, "no weights, or cut or damaged ones"),
        (text, "no weights, or cut or damaged ones"),
        (module, "holds objects besides tensors, which are not loaded since they could run code"),
        (tensor, "expected a state dict, got Tensor"),
    ],
)
def test_a_file_without_weights_says_what_it_is(path, spoil, words):
    spoil(path)
    with pytest.raises(UserError, match=f"^{re.escape(f'{path}: {words}')}") as refused:
        read_checkpoint(path)
    assert "\n" not in str(refused.value) and refused.value.__cause__ is None


def test_weights_that_are_gone_are_named(path):
    with pytest.raises(UserFileError, match=r"other\.pt: no such file"):
        read_checkpoint(path.with_name("other.pt"))


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (nn.Linear(2, 3, bias=False), "1 tensors do not fit, bias (unknown)"),
        (nn.Linear(4, 3), "1 tensors do not fit, weight ((3, 2), expected (3, 4))"),
        (
            nn.Sequential(OrderedDict(a=nn.Linear(2, 3))),
            "4 tensors do not fit, a.bias (missing), a.weight (missing), bias (unk",
        ),
    ],
)
def test_weights_of_another_network_are_refused_with_what_does_not_fit_and_change_nothing(path, network, words):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(UserError, match=re.escape(f"{path}: weights of another network: {words}")):
        load_weights(network, path)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
