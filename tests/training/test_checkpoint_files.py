"""Checkpoints: whole or not at all, and those that are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fastproto.training import RunResult, fit
from fastproto.training.checkpoint_files import KEY, part_of_state
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


def edited(checkpoint: Path, file: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The same checkpoint with a change."""
    content = torch.load(checkpoint, weights_only=True)
    change(content)
    torch.save(content, file)
    return file


def test_a_head_that_this_version_does_not_know(finished: RunResult, tmp_path: Path) -> None:
    def rename(content: dict[str, Any]) -> None:
        content[KEY]["config"]["head"]["name"] = "future"

    with pytest.raises(
        ValueError, match=r"cannot follow .ValueError: head\.name is 'future'; expected one of prototype"
    ):
        load_classifier(edited(finished.checkpoint, tmp_path / "future.ckpt", rename))


def test_versions_of_modules_are_kept_and_missing_counters_are_seen(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    holder = nn.ModuleDict({"head": module, "other": nn.Linear(1, 1)})
    for prefix, state in (("head.", holder.state_dict()), ("", module.state_dict())):
        part = part_of_state(state, prefix)
        assert part._metadata == module.state_dict()._metadata and part._metadata["1"]["version"] == 2  # type: ignore[attr-defined]
        assert part.keys() == module.state_dict().keys()
        del part["1.num_batches_tracked"]
        with pytest.raises(RuntimeError, match="num_batches_tracked"):
            module.load_state_dict(part)
