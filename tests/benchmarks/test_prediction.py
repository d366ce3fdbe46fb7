"""Every way of predicting gives probabilities of the file, and ours give nearly the same ones."""

from __future__ import annotations

import pytest

from benchmarks import prediction


def probabilities(how, scan):
    made = prediction.side(how, str(scan), str(scan), 32, 8)
    made.warm()
    made.ready()
    return made.call()


@pytest.mark.parametrize("how", ["torch", "torch, fp32", "replaced"])
def test_every_way_gives_probabilities(scan, how):
    assert sum(probabilities(how, scan)) == pytest.approx(1, abs=1e-5)


def test_openvino_gives_the_probabilities_of_torch(scan):
    pytest.importorskip("openvino")
    assert probabilities("OpenVINO", scan) == pytest.approx(probabilities("torch, fp32", scan), abs=0.01)


def test_the_largest_difference_of_a_probability_is_told_of_each_way_of_ours():
    noted = {"torch, fp32": {"note": [0.5, 0.5]}, "OpenVINO": {"note": [0.4, 0.6]}, "torch": {"note": [0.5, 0.5]}}
    told = list(prediction.notes(noted))
    assert [line.rsplit(" ", 1)[1] for line in told] == ["0.", "0.1."]
    assert list(prediction.notes({"torch": {"note": [0.5, 0.5]}})) == []
