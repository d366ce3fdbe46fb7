"""The second opinion of a network on the flags of a case: told of those that were learned, and a reason to abstain if asked."""

import pytest
import torch
from ignite.engine import Engine

from monai_chd.handlers import FlagOpinions
from monai_chd.labels import FLAGS
from monai_chd.networks import CNNLSTM
from monai_chd.workflow import class_by_flags


def network_telling(*flags: str) -> CNNLSTM:
    """A classifier that is sure of some flags, and of no others."""
    made = CNNLSTM("small_cnn", hidden_size=4, pooling="mean", flags=True).eval()
    with torch.no_grad():
        made.classifier.weight.zero_()
        made.classifier.bias[:] = torch.tensor([5.0, 0, 0] + [9.0 if flag in flags else -9.0 for flag in FLAGS])
    made.learned_flags[: FLAGS.index("PAS")] = True
    return made


def opinions_of(network, **options):
    listener = FlagOpinions(network, class_by_flags(), **options)
    engine = Engine(lambda _, batch: network(batch, torch.tensor([3])))
    listener.attach(engine)
    engine.run([torch.rand(1, 1, 3, 32, 32)])
    return listener


@pytest.mark.parametrize(
    ("flags", "label"), [(("VSD",), "Non-Cyanotic"), (("VSD", "PA"), "Cyanotic"), ((), "Normal"), (("DORV",), "")]
)
def test_flags_make_a_class_by_the_rule(flags, label):
    listener = opinions_of(network_telling(*flags))
    [opinion] = listener.last
    assert opinion.label == label and "PAS" not in opinion.flags and len(opinion.flags) == len(FLAGS) - 1
    assert {flag for flag, p in opinion.flags.items() if p > 0.5} == set(flags)


def test_disagreement_is_a_reason_only_where_it_is_asked_for():
    for abstain in (False, True):
        listener = opinions_of(network_telling("VSD"), abstain=abstain)
        reason = listener.reason(listener.last[0], "Cyanotic")
        assert reason == ("Cyanotic by its class, Non-Cyanotic by its diagnoses (VSD)" if abstain else "")
        assert listener.reason(listener.last[0], "Non-Cyanotic") == ""
    open_ = opinions_of(network_telling("DORV"), abstain=True)
    assert open_.reason(open_.last[0], "Cyanotic") == ""


def test_networks_without_flags_have_no_opinion():
    listener = opinions_of(CNNLSTM("small_cnn", hidden_size=4).eval())
    assert listener.part is None and not listener.last
