"""Ours gives the numbers of its single transforms; how far the other ways are from it is told."""

from __future__ import annotations

import pytest

from benchmarks import agreement
from benchmarks.volumes import STORED_OFFSET


def test_ours_is_compared_with_its_single_transforms(scan):
    found = {row["ours against"]: row for row in agreement.differences(str(scan), 24, 8, STORED_OFFSET)}
    assert found["the single transforms, uint8"]["largest"] == 0
    assert found["the single transforms, float32"]["largest"] == 0
    assert found["MONAI stock, float32"]["largest"] < 1e-6


def test_jpg_has_the_right_frames_the_right_way_up_and_not_the_same(scan):
    row = agreement.jpg_difference(str(scan), 24, 8, STORED_OFFSET)
    assert row["ours against"].startswith("JPG") and 0.001 < row["largest"] < 0.6


@pytest.mark.parametrize("encoder", ["resnet18", "efficientnet_lite0"])
def test_what_bfloat16_changes_is_small_and_not_nothing(scan, monkeypatch, encoder):
    monkeypatch.setattr(agreement, "ROUNDED_FRAMES", 3)
    row = agreement.rounding(str(scan), 64, encoder)
    assert 0 < row["largest"] < 0.05  # 0 where both were worked out in float32
    assert row["ours against"] == f"{encoder} in bfloat16 (3 frames)" and row["unit"] == "of a probability"


def test_phantom_and_real_scan_are_compared_at_every_size(scan):
    made = agreement.side(str(scan), [24, 16], 8, rounded=False)
    found = made.call()
    assert {(row["scan"], row["size"]) for row in found} == {
        (name, size) for name in ("phantom", "real scan") for size in (24, 16)
    }
    assert {row["scan"] for row in found if row["ours against"].startswith("JPG")} == {"phantom"}
    assert not any(map(agreement.wrong, found))


def test_only_a_difference_from_the_single_transforms_is_wrong():
    row = {"ours against": "the single transforms, uint8", "largest": 1.0}
    assert agreement.wrong(row)
    assert not agreement.wrong({**row, "largest": 0})
    assert not agreement.wrong({**row, "ours against": "JPG"})
