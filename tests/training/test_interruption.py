"""Ctrl-C in what follows the training, seen from Python: the run is interrupted, and a resume finishes it."""

from __future__ import annotations

import signal
from pathlib import Path

import lightning as L
import pytest

from fastproto.training import TrainConfig, fit


def test_an_interruption_in_the_test_is_one_and_a_resume_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig(out=str(tmp_path / "run"), progress=False, accelerator="cpu")
    config.model.name, config.optim.epochs = "mlp", 1
    handler = signal.getsignal(signal.SIGINT)

    def interrupt(module: L.LightningModule) -> None:
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(L.LightningModule, "on_test_start", interrupt)
        with pytest.raises(KeyboardInterrupt, match=str(tmp_path / "run")):
            fit(config)
    assert signal.getsignal(signal.SIGINT) is handler
    metrics = tmp_path / "run" / "metrics.csv"
    before = metrics.read_text().splitlines()
    assert "test/" not in before[0] and not (tmp_path / "run" / "curves.png").exists()
    with pytest.raises(ValueError, match="already holds a run"):
        fit(config)
    config.resume = config.out
    result = fit(config)
    after = metrics.read_text().splitlines()
    assert len(after) == len(before) + 1 and "test/accuracy_top1" in after[0]
    assert all(row.startswith(old) for row, old in zip(after[1:], before[1:], strict=False))  # with columns of the test
    assert 0.5 < result.test_accuracy <= 1 and (tmp_path / "run" / "curves.png").exists()
