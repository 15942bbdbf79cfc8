"""A run that several tests look at, and runs without pictures."""

from __future__ import annotations

import pytest
import torch

from fastproto.training import RunResult, fit, run

from .helpers import quick


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A run of two epochs on the digits. None may write into its folder."""
    torch.manual_seed(0)
    return fit(quick(tmp_path_factory.mktemp("finished") / "run"))


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half the time of a short run, where none is looked at."""
    monkeypatch.setattr(run, "draw_pictures", lambda *args: None)
