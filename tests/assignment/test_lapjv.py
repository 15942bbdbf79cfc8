"""method="lapjv": it ends on ties, its results are certified, and a missing package is one sentence."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fastproto import assign, reference, solve

from .instances import KINDS, assert_optimal, instance

installed = importlib.util.find_spec("lapjv") is not None
needs_lapjv = pytest.mark.skipif(not installed, reason="the extra lapjv is not installed")
PATIENCE = 600  # seconds, for what takes one: a hang has no end


def run_ties(root: Path, first: int, end: int) -> str:
    command = [sys.executable, "-m", "tests.assignment.tie_heavy", str(first), str(end)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_lapjv
def test_ties_do_not_hang(root: Path) -> None:
    """tests/slow has 10,000 instances."""
    assert "lapjv" in run_ties(root, 20_000, 20_400)


@needs_lapjv
@pytest.mark.parametrize("kind", KINDS)
def test_class_means(kind: str) -> None:
    for c, d in ((2, 2), (130, 16), (200, 64)):
        q, w = instance(c, d, 0, kind)
        found = assign(q, w, method="lapjv")
        assert_optimal(found, reference.scores(q.double(), w.double()))
        again = assign(q, w, method="lapjv", previous=found)
        assert again.certified and again.changed == 0
        moved = q + 0.05 * torch.randn_like(q) * (q != 0)
        warm = assign(moved, w, method="lapjv", previous=found)
        assert_optimal(warm, reference.scores(moved.double(), w.double()))


@needs_lapjv
@pytest.mark.parametrize("kind", ["clustered", "random", "near", "ties"])
def test_a_thousand_classes_are_certified(kind: str) -> None:
    q, w = instance(1000, 64, 0, kind)
    found = assign(q, w, method="lapjv")
    assert found.certified and "lapjv on a grid of whole numbers" in found.reason
    assert found.objective == pytest.approx(assign(q, w).objective, rel=1e-6)


@needs_lapjv
def test_a_coarse_grid_is_refined() -> None:
    """The optimum is small beside the spread: the first grid cannot show it to within the tolerance."""
    found = solve(np.random.default_rng(0).random((300, 300)), method="lapjv")
    assert found.certified and found.method == "lapjv"
    assert found.reason == "asked for; on a grid of whole numbers, refined"


def test_a_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lapjv", None)  # as if it were not installed
    message = r"not installed: pip install 'fastproto\[lapjv\]' with Python up to 3\.11 on Linux x86-64, .* 'dense' or"
    with pytest.raises(ImportError, match=message):
        solve([[1.0]], method="lapjv")
