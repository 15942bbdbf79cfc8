"""The search for prototypes: what it reaches, determinism, limits, interruption, bad input."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from fastproto.prototypes import cache_folder, estimate_prototypes, measure_prototypes
from fastproto.prototypes.budget import Budget
from fastproto.prototypes.closed_forms import Objective
from fastproto.prototypes.optimise import minimise
from fastproto.prototypes.population import hopping_population
from fastproto.prototypes.search import anneal, max_cosine, search_uniform
from fastproto.prototypes.starts import random_start

# --- what is reached -------------------------------------------------------------------------------------------------


def passes_to(trace: list[tuple[float, float, float]], value: float) -> float:
    return next((spent for spent, _, reached in trace if reached <= value), math.inf)


@pytest.mark.parametrize(
    ("classes", "dim", "target", "near"),
    [(200, 25, -3.7915, 60), (200, 50, -3.9336, 180), (1000, 64, -3.8982, 62)],
)
def test_few_passes_to_one_percent(classes: int, dim: int, target: float, near: int) -> None:
    budget = Budget(limit=near)
    _, value = minimise(random_start(classes, dim, 0), 2.0, budget, passes=near, tolerance=0.0)
    random = budget.trace[0][2]
    assert value <= target + 0.01 * (random - target)
    assert passes_to(budget.trace, target + 0.01 * (random - target)) <= near
    assert budget.spent == len(budget.trace) <= near


def test_lowest_values_of_small_cases() -> None:
    reached, _ = minimise(random_start(200, 25, 0), 2.0, Budget(), passes=400, tolerance=0.0)
    assert measure_prototypes(reached).uniformity <= -3.7915
    found = estimate_prototypes(30, 5, effort="best", max_passes=600)
    assert found.method == "lbfgs"
    assert found.quality.uniformity == pytest.approx(-3.1577892, abs=1e-6)  # where four seeds' whole searches end
    assert found.quality.uniformity >= found.quality.uniformity_bound


def test_a_population_ends_where_the_best_of_many_descents_does() -> None:
    budget = Budget(limit=60_000)
    for _, points in hopping_population(48, 6, 2.0, 0, budget):
        reached, value = minimise(points, 2.0, Budget(), passes=400, tolerance=0.0)
        torch.testing.assert_close(torch.linalg.vector_norm(reached, dim=1), torch.ones(48, dtype=torch.float64))
    starts = [minimise(random_start(48, 6, k), 2.0, Budget(), passes=400, tolerance=0.0)[1] for k in range(6)]
    assert budget.spent <= 60_000 and value <= min(starts) + 1e-9 and value < max(starts) - 1e-4
    short = Budget(limit=100)
    assert hopping_population(20, 4, 2.0, 0, short)[0][1].shape == (20, 4) and short.spent <= 100


def test_search_finds_sharp_codes() -> None:
    for classes, dim in [(12, 3), (27, 6)]:
        found = estimate_prototypes(classes, dim, method="lbfgs", effort="best", max_passes=150, cache=False)
        assert found.method == "lbfgs"
        assert found.quality.uniformity == pytest.approx(found.quality.uniformity_bound, abs=1e-6)


def test_annealing_lowers_the_max_cosine() -> None:
    points = anneal(random_start(100, 32, 0), 8.0, 2048.0, 4.0, Budget(limit=500))
    assert max_cosine(points) <= 0.085  # the authors' published file has 0.2465
    points = anneal(random_start(24, 3, 0), 2.0, 4096.0, 4.0, Budget())
    assert max_cosine(points) == pytest.approx(0.7231, abs=2e-4)  # the snub cube: the record for 24 on a sphere
    found = estimate_prototypes(10, 3, objective="max_cosine", max_passes=300)
    assert found.quality.max_cosine < 0.43  # the record is 0.40439
    assert found.quality.max_cosine >= found.quality.max_cosine_bound


def test_the_authors_file_is_beaten() -> None:
    uniformity, largest = -3.45515788, 0.45727780  # of their published 100centers_10dim.pth, at t = 2
    points, value = minimise(random_start(100, 10, 0), 2.0, Budget(), passes=200, tolerance=0.0)
    assert value < uniformity and max_cosine(points) < largest


# --- behaviour -------------------------------------------------------------------------------------------------------


def test_same_seed_same_bits_other_seed_other_points() -> None:
    runs = [estimate_prototypes(40, 6, max_passes=60, cache=False).vectors for _ in range(5)]
    assert all(torch.equal(runs[0], run) for run in runs)
    assert not torch.equal(runs[0], estimate_prototypes(40, 6, seed=1, max_passes=60, cache=False).vectors)


def test_limits_are_kept() -> None:
    for objective in ("uniform", "max_cosine"):
        found = estimate_prototypes(60, 8, objective=objective, max_passes=25, cache=False)
        assert 1 <= found.passes <= 25
    found = estimate_prototypes(500, 40, time_limit=0.2)
    assert found.seconds < 5 and not cache_folder().exists()


def test_progress_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    estimate_prototypes(30, 5, max_passes=5, progress=True, cache=False)
    printed = capsys.readouterr().err
    assert printed.startswith("\rprototypes: pass 1 of 5") and printed.count("\n") == 1


class Interrupting(list[tuple[float, float, float]]):
    """A trace whose user presses Ctrl-C at the 40th pass."""

    def append(self, entry: tuple[float, float, float]) -> None:
        super().append(entry)
        if len(self) == 40:
            raise KeyboardInterrupt


@pytest.mark.parametrize("objective", ["uniform", "max_cosine"])
def test_interruption_returns_the_best_so_far(objective: Objective, capsys: pytest.CaptureFixture[str]) -> None:
    found = estimate_prototypes(50, 6, objective=objective, trace=Interrupting())
    assert found.passes == 40
    assert found.quality.uniformity < measure_prototypes(random_start(50, 6, 0)).uniformity - 0.05
    printed = capsys.readouterr().err
    assert "interrupted after 40 passes" in printed and printed.count("\n") == 1
    assert not cache_folder().exists()


def test_lower_precision_ends_as_well_as_the_highest() -> None:
    exact = search_uniform(120, 40, 2.0, 0, Budget(limit=100))
    quick = search_uniform(120, 40, 2.0, 0, Budget(limit=100), precision="medium")
    values = [measure_prototypes(w).uniformity for w in (exact, quick)]
    assert values[1] == pytest.approx(values[0], abs=2e-3)


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_classes": 1},
        {"dim": 1},
        {"t": 0.0},
        {"t": math.nan},
        {"t": -2.0},
        {"objective": "even"},
        {"method": "adam"},
        {"max_passes": 0},
        {"time_limit": 0.0},
        {"precision": "low"},
        {"effort": "more"},
        {"method": "sgd", "form": "pairs"},
        {"method": "sgd", "subset_size": 1},
        {"method": "sgd", "subset_size": 31},
        {"method": "sgd", "lr": 0.0},
        {"method": "sgd", "iterations": 0},
    ],
    ids=str,
)
def test_bad_arguments_are_one_sentence(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        estimate_prototypes(**({"num_classes": 30, "dim": 5} | arguments))
    assert "\n" not in str(caught.value)


def test_sizes_are_whole_numbers() -> None:
    made = estimate_prototypes(30.0, 5, max_passes=1)  # type: ignore[arg-type]
    assert torch.equal(made.vectors, estimate_prototypes(30, 5, max_passes=1).vectors)
    with pytest.raises(ValueError, match=r"num_classes is 30\.5; expected an integer"):
        estimate_prototypes(30.5, 5)  # type: ignore[arg-type]
