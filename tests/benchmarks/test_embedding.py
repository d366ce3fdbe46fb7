"""Features of every scan are written anew at every call."""

from __future__ import annotations

from pathlib import Path

from benchmarks import embedding
from benchmarks.volumes import FULL, Volumes


def test_features_of_every_scan_are_written_anew(scan, work):
    made = embedding.side([str(scan)], str(scan), 32, 8)
    made.warm()
    assert made.call() in ("float32", "bfloat16")
    assert made.call() and len(list(work.glob("*/*.features"))) == 3


def test_with_full_all_patients_are_embedded_once():
    [one] = embedding.benches(Volumes(Path(), FULL))
    [full] = embedding.benches(Volumes(Path(), FULL._replace(embedded=7)))
    assert [len(given["paths"]) for bench in (one, full) for _, given in bench.sides.values()] == [1, 7]
    assert (one.rounds, full.rounds) == (None, 1)
    assert list(full.sides) == ["7 patients"]


def test_one_patient_is_extrapolated_to_all():
    [told] = embedding.notes({"one patient": {"wall": [1.0, 2.0, 9.0]}})
    assert "110 patients take 220 s" in told
    assert list(embedding.notes({"110 patients": {"wall": [5.0]}})) == []
