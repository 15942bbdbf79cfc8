"""Several processes against one process that sees the ranks' batches one after another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from .ranks import SIZES, STEPS, TOPICS, D, Model, on_ranks, rank_batch, train

WORLD = 2


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What two ranks find, by topic."""
    torch.manual_seed(0)
    return on_ranks(WORLD, tmp_path_factory.mktemp("ranks"), list(TOPICS))


def check_against_one_process(ranks: list[dict[str, Any]], reduction: str, means: str) -> None:
    model = Model(reduction, means)
    together = [
        tuple(torch.cat(parts) for parts in zip(*(rank_batch(step, r, True) for r in range(len(ranks))), strict=True))
        for step in range(STEPS)
    ]
    alone = train(model, model, together)  # type: ignore[arg-type]
    assert any(alone["changes"]), "the test should see assignments change"
    for one in ranks:
        assert one["changes"] == alone["changes"]
        assert one["sent"] == [], "no buffer of the head travels before a forward"
        for name, value in alone["state"].items():
            torch.testing.assert_close(one["state"][name], value, rtol=1e-5, atol=1e-6)
            if name.startswith("head."):
                assert torch.equal(one["state"][name], ranks[0]["state"][name]), "ranks must hold the same bits"
    for step in range(STEPS):
        across = sum(one["losses"][step] for one in ranks) / len(ranks)  # DDP averages gradients, hence losses
        assert across == pytest.approx(alone["losses"][step], rel=1e-5)


@pytest.mark.parametrize(("reduction", "means"), [("sum", "official"), ("mean", "ema")])
def test_two_ranks_equal_one_process(reduction: str, means: str, found: dict[str, list[Any]]) -> None:
    check_against_one_process(found[f"{reduction}-{means}"], reduction, means)


def test_four_ranks_equal_one_process(tmp_path: Path) -> None:
    check_against_one_process(on_ranks(4, tmp_path, ["mean-ema"])["mean-ema"], "mean", "ema")


def test_means_move_when_they_are_needed(found: dict[str, list[Any]]) -> None:
    assert found["when_means_move"] == [[0, 1, 2, 3, 4, 5, 6, 7, 8]] * WORLD


def test_labels_of_batches_of_other_sizes_are_gathered(found: dict[str, list[Any]]) -> None:
    together = torch.cat([rank_batch(STEPS - 1, rank, True)[1] for rank in range(WORLD)])
    assert all(torch.equal(one, together) for one in found["labels_of_all"])


def test_each_rank_may_keep_means_of_its_own(found: dict[str, list[Any]]) -> None:
    first, *others = found["local_means"]
    assert first["means"].any()
    for other in others:
        assert torch.equal(other["assignment"], first["assignment"]), "rank 0's means decide for all"
        assert other["means"].any() and not torch.equal(other["means"], first["means"])


def test_what_a_step_sends_does_not_depend_on_the_number_of_classes(found: dict[str, list[Any]]) -> None:
    size, wide = rank_batch(0, 0, False)[1].numel(), 4 * D
    step = 8 + size * (wide + 8) + 5 * wide  # the count; features and labels; the gradient of the backbone
    few, many = SIZES
    for sent in found["bytes_of_a_step"]:
        assert sent[few, True] == sent[many, True] == step
        grown = (many - few) * (2 * wide + 8 + 4)
        assert sent[many, False] - sent[few, False] == grown, "the count sees the buffers that DDP would send"


def test_what_a_constructor_estimates_is_the_same_everywhere(found: dict[str, list[Any]]) -> None:
    first, *others = found["estimated_prototypes"]
    assert all(torch.equal(w, first) for w in others)


def test_a_renewal_in_the_background_is_adopted_by_all(found: dict[str, list[Any]]) -> None:
    first, *others = found["background_renewal"]
    assert not torch.allclose(first[0], Model().head.prototypes, atol=0.01), "the renewal turned the prototypes"
    assert all(torch.equal(a, b) for other in others for a, b in zip(other, first, strict=True))


def test_an_error_in_a_renewal_is_raised_on_all(found: dict[str, list[Any]]) -> None:
    assert all("NaN" in error for error in found["error_of_a_renewal"])


def test_a_bad_batch_on_one_rank_is_an_error_on_all(found: dict[str, list[Any]]) -> None:
    first, *others = found["error_of_a_bad_batch"]
    assert "labels run from" in first
    assert all("rank 0 was given a bad batch" in error for error in others)
