"""Every epoch whose workers are measured runs."""

from __future__ import annotations

import pytest

from benchmarks import workers


@pytest.mark.parametrize("epoch", workers.EPOCHS, ids=lambda epoch: epoch.what)
def test_an_epoch_with_workers_to_come_runs_without_them(scan, epoch):
    for call in workers.side(0, epoch.train, epoch.cache, [str(scan)], str(scan), 24, 8):
        call()
