"""Flags stand behind the class in what a network with that second task is trained on."""

import torch

from monai_chd.handlers import PrepareBatchWithFlags
from monai_chd.handlers.flag_targets import flag_targets
from monai_chd.labels import FLAGS


def test_flags_of_each_case_in_their_order():
    found = flag_targets(["VSD+PA", "", "ASD"])
    assert found.shape == (3, len(FLAGS))
    assert [[FLAGS[place] for place in row.nonzero()[:, 0]] for row in found] == [["VSD", "PA"], [], ["ASD"]]


def test_labels_become_wider_only_where_flags_are_a_task():
    batch = {
        "image": torch.zeros(2, 1),
        "label": torch.tensor([1, 2]),
        "num_frames": torch.tensor([3, 4]),
        "flags": ["ASD", ""],
    }
    for active in (False, True):
        image, label, args, kwargs = PrepareBatchWithFlags({"num_frames": "num_frames"}, active)(batch)
        assert image is batch["image"] and kwargs["num_frames"].tolist() == [3, 4] and not args
        if active:
            assert label[:, 0].tolist() == [1, 2] and label[:, 1:].sum(1).tolist() == [1, 0]
        else:
            assert label.tolist() == [1, 2]
