"""The replaced pipeline is as it was: JPGs of every slice, padding read by the network."""

from __future__ import annotations

import torch

from benchmarks.replaced import jpg_frames, read_jpgs, replaced_network, write_jpgs
from monai_chd.networks import CNNLSTM, SmallCNN


def test_the_replaced_pipeline_writes_each_slice_and_reads_the_first_with_zeros_after(scan, tmp_path):
    folder = tmp_path / "jpg" / "1001"
    write_jpgs(str(scan), folder, 32)
    assert len(list(folder.glob("*.jpg"))) == 12
    whole, cut = read_jpgs(folder, 32, 20), read_jpgs(folder, 32, 5)
    assert (whole.shape, whole.dtype, cut.shape) == ((1, 20, 32, 32), torch.float32, (1, 5, 32, 32))
    assert torch.equal(whole[:, :5], cut)
    assert float(whole[:, 12:].abs().max()) == 0
    assert 0.3 < float(whole[:, :12].max()) <= 1
    assert torch.equal(jpg_frames(str(scan), 32, 20, 0.0)(), whole)


def test_the_replaced_network_reads_the_padding_and_ours_does_not():
    torch.manual_seed(0)
    replaced, ours = replaced_network(SmallCNN(), 1024).eval(), CNNLSTM().eval()
    frames = torch.rand(1, 1, 3, 16, 16)
    padded = torch.nn.functional.pad(frames, (0, 0, 0, 0, 0, 4))
    with torch.no_grad():
        assert not torch.allclose(replaced(frames[:, 0, :, None]), replaced(padded[:, 0, :, None]))
        assert torch.allclose(ours(frames, torch.tensor([3])), ours(padded, torch.tensor([3])), atol=1e-6)
