"""Checkpoints: whole or not at all, and those that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fastproto.training import RunResult, fit
from fastproto.training.classifier import load_classifier

from .helpers import quick


def test_checkpoints_are_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(content: Any, file: Any) -> None:
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="disk full"):
        fit(quick(tmp_path))
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_checkpoints_that_are_refused(finished: RunResult, tmp_path: Path) -> None:
    last = finished.folder / "checkpoints" / "last.ckpt"
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes(last.read_bytes()[:5000])
    torch.save({"weights": torch.eye(2)}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="truncated"):
        fit(quick(tmp_path / "new", resume=str(cut)))
    with pytest.raises(ValueError, match="truncated"):
        load_classifier(cut)
    with pytest.raises(ValueError, match="not written by fastproto-train"):
        load_classifier(tmp_path / "other.ckpt")
    with pytest.raises(FileNotFoundError, match="no run folder"):
        fit(quick(tmp_path / "new", resume=str(tmp_path / "nowhere")))
    with pytest.raises(ValueError, match=r"head\.dim 5 .* this run has 7"):
        fit(quick(tmp_path / "new", resume=str(last), head__dim=7))
    with pytest.raises(ValueError, match="10 classes and this run has 20"):
        fit(quick(tmp_path / "new", resume=str(last), data__name="glyphs", data__num_classes=20))
