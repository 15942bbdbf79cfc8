"""The metrics file: what a crash has cut short, and where the clock goes on."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from fastproto.training.metrics import MetricsFile


def test_a_metrics_file_cut_short_by_a_crash(tmp_path: Path) -> None:
    whole = "epoch,step,train/loss\n0,9,0.5\n1,19,0.25\n"
    for length in range(len(whole) + 1):
        file = tmp_path / "metrics.csv"
        file.write_text(whole[:length])
        kept = MetricsFile(file, keep_before_step=100).rows
        assert [row["step"] for row in kept] == ["9", "19"][: max(whole[:length].count("\n") - 1, 0)]


def test_seconds_go_on_after_a_run_that_was_killed(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    file.write_text("epoch,step,train/loss,seconds\n0,9,0.5,100.5\n1,19,0.25,200.25\n1,25,0.2,300\n")
    MetricsFile(file, keep_before_step=20).log_metrics({"train/loss": 0.1, "epoch": 2}, step=20)
    with file.open(newline="") as lines:
        seconds = [float(row["seconds"]) for row in csv.DictReader(lines)]
    assert seconds[:2] == [100.5, 200.25] and 200.25 <= seconds[2] < 300
    for damaged in ("epoch,step\nx,y\n", "epoch\n1\n", "epoch,step,seconds\n1,2,nan\n", "step\n1,2,3\n", "\0\n\0\n"):
        file.write_text(damaged)
        with pytest.raises(ValueError, match=r"metrics\.csv is not the metrics file"):
            MetricsFile(file, keep_before_step=20)
