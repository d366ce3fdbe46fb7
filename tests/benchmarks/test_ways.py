"""The ways that are compared give the same frames as ours, or frames turned the same way."""

from __future__ import annotations

import pytest
import torch

from benchmarks import ways
from benchmarks.volumes import STORED_OFFSET
from monai_chd.transforms import LoadFrames


@pytest.mark.parametrize("size", [40, 24])
def test_the_stock_ways_give_the_same_frames_as_ours(scan, size):
    ours = LoadFrames(size, 8, quantize=False)(scan).as_tensor()
    stock = ways.monai_stock(str(scan), size, 8, STORED_OFFSET)()
    assert stock.shape == (1, 8, size, size)
    assert torch.allclose(stock.as_tensor(), ours, rtol=0, atol=1e-6)
    assert 0 < float(ours.mean()) < 1


@pytest.mark.parametrize("size", [40, 24])
def test_torchio_gives_the_same_frames_as_ours(scan, size):
    pytest.importorskip("torchio")
    ours = LoadFrames(size, 8, quantize=False)(scan).as_tensor()
    other = ways.torchio_same(str(scan), size, 8, STORED_OFFSET)()
    assert torch.allclose(other, ours, rtol=0, atol=1e-6)


def test_torchio_stock_gives_frames_of_the_same_shape_turned_the_same_way(scan):
    pytest.importorskip("torchio")
    ours = LoadFrames(40, 8, quantize=False)(scan).as_tensor()
    stock = ways.torchio_stock(str(scan), 40, 8, STORED_OFFSET)()
    assert stock.shape == ours.shape
    assert float((stock - ours).abs().mean()) < 0.5 * float((stock.flip(3) - ours).abs().mean())
    assert float((stock - ours).abs().mean()) < 0.5 * float((stock.flip(2) - ours).abs().mean())


def test_ours_is_what_the_bundle_reads_in_both_types(scan):
    uint8, float32 = (way(str(scan), 24, 8, STORED_OFFSET)() for way in (ways.ours_uint8, ways.ours_float32))
    assert torch.equal(uint8.as_tensor(), LoadFrames(24, 8)(scan).as_tensor()) and uint8.dtype == torch.uint8
    assert torch.equal(float32.as_tensor(), LoadFrames(24, 8, quantize=False)(scan).as_tensor())


def test_the_inflater_alone_reads_the_whole_file_and_gives_nothing(scan):
    call = ways.inflater_alone(str(scan), 24, 8, STORED_OFFSET)
    assert call() is None
    cut = scan.with_name("cut.nii.gz")
    cut.write_bytes(scan.read_bytes())
    call = ways.inflater_alone(str(cut), 24, 8, STORED_OFFSET)
    cut.write_bytes(scan.read_bytes()[:-2000])
    with pytest.raises((EOFError, AssertionError)):
        call()
