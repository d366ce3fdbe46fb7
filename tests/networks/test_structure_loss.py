"""Nothing is learned of a myocardium that nobody drew."""

import torch
from monai.losses import DiceCELoss

from monai_chd.labels import MYOCARDIUM, UNDRAWN
from monai_chd.networks import StructureLoss
from monai_chd.networks.structure_loss import known_part


def labelled(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 8, 12, 12, generator=generator, requires_grad=True)
    return logits, torch.randint(0, 8, (3, 1, 12, 12), generator=generator)


def test_of_whole_label_maps_it_is_monais_loss():
    logits, labels = labelled()
    expected = DiceCELoss(to_onehot_y=True, softmax=True, batch=True, smooth_nr=1e-5, smooth_dr=1e-5)(logits, labels)
    torch.testing.assert_close(StructureLoss()(logits, labels), expected)


def test_where_the_myocardium_was_not_drawn_only_the_sum_of_it_and_background_counts():
    logits, labels = labelled()
    labels[labels == MYOCARDIUM] = 0
    labels[1][labels[1] == 0] = UNDRAWN
    moved = logits.detach().clone()
    both = moved[1, [0, MYOCARDIUM]]
    moved[1, 0], moved[1, MYOCARDIUM] = both[1], both[0]  # exchanged: their sum is the same
    torch.testing.assert_close(StructureLoss()(moved, labels), StructureLoss()(logits, labels))
    moved[0, [0, MYOCARDIUM]] = moved[0, [MYOCARDIUM, 0]]  # in a case where it was drawn, it matters
    assert (StructureLoss()(moved, labels) - StructureLoss()(logits, labels)).abs() > 1e-3


def test_the_other_structures_of_such_a_case_are_learned():
    logits, labels = labelled()
    labels[labels == MYOCARDIUM] = 0
    labels[labels == 0] = UNDRAWN
    StructureLoss()(logits, labels).backward()
    assert torch.isfinite(logits.grad).all()
    descended = logits.detach() - 50 * logits.grad
    with torch.no_grad():
        assert StructureLoss()(descended, labels) < StructureLoss()(logits, labels)
    known, numbers = known_part(descended, labels)
    assert int(numbers.max()) == 7 and not known.softmax(1)[:, MYOCARDIUM].gt(1e-6).any()


def test_it_holds_in_half_precision():
    logits, labels = labelled()
    labels[labels == 0] = UNDRAWN
    assert torch.isfinite(known_part(logits.half(), labels)[0]).all()
