"""Short sequences end in zeros, long ones are sampled, and both go back."""

import numpy as np
import pytest
import torch
from tiny_volumes import RAS, frames_of, landmark_volume, save, to_frames, world

from monai_chd.transforms import PadFrames


def test_first_sampling_keeps_the_place_exactly(tmp_path):
    path = save(tmp_path / "ct.nii", landmark_volume())
    frames = to_frames()({"image": path})["image"]
    padded = PadFrames(5, "first")(frames)
    np.testing.assert_array_equal(padded.affine, frames.affine)


@pytest.mark.parametrize("total", [1, 3, 7])
@pytest.mark.parametrize("sampling", ["even", "first"])
def test_short_sequence_is_padded_with_zeros_at_the_end(total, sampling):
    frames = frames_of(1, total, 4, 5)
    padded = PadFrames(7, sampling)(frames)
    assert padded.shape == (1, 7, 4, 5)
    assert torch.equal(padded[:, :total].as_tensor(), frames.as_tensor()) and not padded[:, total:].any()
    assert padded.meta["num_frames"] == total
    assert padded.meta["frame_indices"].tolist() == [*range(total)] + [-1] * (7 - total)
    assert padded.meta["frame_indices"].dtype == torch.int64
    np.testing.assert_array_equal(padded.affine, frames.affine)


def test_even_sampling_takes_first_and_last_and_nearly_equal_steps():
    for length in (2, 3, 8, 50, 199, 200):
        for total in {length, length + 1, length + 2, 2 * length - 1, 2 * length, 2 * length + 1, 3 * length, 613, 622}:
            kept = PadFrames(length).frame_indices(total).numpy()
            if total <= length:
                np.testing.assert_array_equal(kept, np.arange(total))
                continue
            assert len(kept) == length and kept[0] == 0 and kept[-1] == total - 1
            gaps = np.diff(kept)
            assert gaps.min() >= 1 and gaps.max() - gaps.min() <= 1


def test_even_sampling_never_repeats_a_frame_for_any_length():
    step = PadFrames(200)
    for total in range(201, 1000):
        assert len(set(step.frame_indices(total).tolist())) == 200


def test_sampling_to_a_single_frame_is_possible():
    assert PadFrames(1)(frames_of(1, 5, 4, 4)).meta["frame_indices"].tolist() == [0]


def test_even_sampling_carries_the_frames_it_names():
    frames = frames_of(1, 622, 4, 5)
    sampled = PadFrames(200)(frames)
    assert sampled.shape == (1, 200, 4, 5) and sampled.meta["num_frames"] == 200
    assert torch.equal(sampled.as_tensor(), frames.as_tensor()[:, sampled.meta["frame_indices"]])


def test_first_sampling_takes_the_first_frames():
    frames = frames_of(1, 622, 4, 5)
    sampled = PadFrames(200, "first")(frames)
    assert torch.equal(sampled.as_tensor(), frames.as_tensor()[:, :200])
    assert sampled.meta["frame_indices"].tolist() == [*range(200)] and sampled.meta["num_frames"] == 200


@pytest.mark.parametrize(("length", "total"), [(5, 13), (200, 622), (6, 7), (2, 9)])
def test_sampled_frame_lies_within_half_a_source_frame_of_its_true_place(length, total):
    sampled = PadFrames(length)(frames_of(1, total, 2, 2))
    for t, source in enumerate(sampled.meta["frame_indices"].tolist()):
        miss = np.linalg.norm(world(sampled.affine, (t, 1, 1)) - world(RAS, (source, 1, 1)))
        assert miss <= 0.5 * 0.7 + 1e-6, "0.7 mm between the frames sampled from"
    np.testing.assert_allclose(world(sampled.affine, (length - 1, 0, 0)), world(RAS, (total - 1, 0, 0)), atol=1e-9)


@pytest.mark.parametrize("total", [1, 5, 8, 13, 40])
def test_even_sampling_goes_back_to_every_frame_or_its_nearest_kept_one(total):
    frames, step = frames_of(1, total, 3, 3), PadFrames(8)
    padded = step(frames)
    kept = padded.meta["frame_indices"][: padded.meta["num_frames"]].numpy()
    back = step.inverse(padded)
    assert back.shape == frames.shape and back.applied_operations == []
    np.testing.assert_array_equal(back.affine, frames.affine)
    for t in range(total):
        nearest = kept[np.abs(kept - t) == np.abs(kept - t).min()]
        assert any(torch.equal(back[:, t].as_tensor(), frames[:, int(k)].as_tensor()) for k in nearest)


def test_frames_lost_by_first_sampling_come_back_black():
    frames, step = frames_of(1, 13, 3, 3), PadFrames(8, "first")
    back = step.inverse(step(frames))
    assert torch.equal(back[:, :8].as_tensor(), frames[:, :8].as_tensor()) and not back[:, 8:].any()


@pytest.mark.parametrize("length", [0, -1, 1.5, True, "200"])
def test_sequence_length_that_is_no_length_is_refused(length):
    with pytest.raises(ValueError, match="sequence_length: expected a whole number of 1 or more, got"):
        PadFrames(length)


def test_unknown_sampling_and_no_frames_are_refused():
    with pytest.raises(ValueError, match="sampling: expected one of even, first, got 'random'"):
        PadFrames(8, "random")
    with pytest.raises(ValueError, match="expected at least one frame"):
        PadFrames(8)(torch.zeros(1, 0, 4, 4))
