"""Two processes against one that sees the ranks' batches one after another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from fastproto import PrototypeHead

from . import lightning_ranks, ranks


def test_the_classifier_of_the_authors_counts_the_samples_of_all_ranks(tmp_path: Path) -> None:
    """In the authors' code every rank has class means of its own."""
    one, two = ranks.classifier_on_two_ranks(tmp_path)
    assert torch.equal(one["queue"], two["queue"]) and one["indices"] == two["indices"]
    torch.manual_seed(0)  # as rank 0
    together = [
        tuple(torch.cat(parts) for parts in zip(ranks.batch_of(step, 0), ranks.batch_of(step, 1), strict=True))
        for step in range(ranks.STEPS)
    ]
    alone = ranks.classifier_steps(together)  # type: ignore[arg-type]  # zip forgets that there are two parts
    torch.testing.assert_close(one["queue"], alone["queue"], rtol=1e-5, atol=1e-6)
    assert one["indices"] == alone["indices"]
    check_shares(one["mixed"], two["mixed"])
    assert torch.equal(one["estimated"], two["estimated"])


def check_shares(one: dict[str, Any], two: dict[str, Any]) -> None:
    """The samples of each rank count with the rank's own lam, in the order of the ranks."""
    assert torch.equal(one["queue"], two["queue"])
    expected = one["before"]
    for rank, lam in enumerate(ranks.SHARES):
        x, labels = ranks.batch_of(0, rank)
        moved = (1.9 * expected[labels] + 0.1 * lam * F.normalize(x, dim=1)) / (1.9 + 0.1 * lam)
        expected = expected.index_copy(0, labels, moved)
    torch.testing.assert_close(one["queue"], F.normalize(expected, dim=1), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*TreeSpec:FutureWarning", "ignore:The '.*dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # of Lightning
def test_lightning_renews_on_two_ranks_as_in_one_process(root: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "tests.compat.lightning_ranks", str(tmp_path)]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    one, two = (torch.load(tmp_path / f"lightning-{rank}.pt", weights_only=True) for rank in range(2))
    assert one["renewed"] == two["renewed"] == 1
    assert "inner.0.prototypes" in one["ignored"] and "inner.0.class_means" in one["ignored"]
    assert all(torch.equal(value, two["state"][name]) for name, value in one["state"].items())
    alone = lightning_ranks.lightning_fit(tmp_path, devices=1)
    first = PrototypeHead(lightning_ranks.C, lightning_ranks.D).assignment
    assert not torch.equal(alone["state"]["inner.0.assignment"], first)
    assert torch.equal(one["state"]["inner.0.assignment"], alone["state"]["inner.0.assignment"])
    torch.testing.assert_close(one["state"]["net.weight"], alone["state"]["net.weight"], rtol=1e-3, atol=1e-4)
