"""Cost matrices with structure: outliers, forbidden pairs, ties, offsets, all scales and types; previous results."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from fastproto import assign, reference, solve
from fastproto.assignment import Assignment
from fastproto.assignment.inputs import Method

Array = np.ndarray[Any, Any]
Generator = np.random.Generator
METHODS: tuple[Method, ...] = ("auto", "dense", "column_generation")  # lapjv may be missing
WRONG = 1e-6  # relative to max(1, |cost|)


@dataclass
class Tally:
    """Of the solves of one kind."""

    count: int = 0
    wrong: int = 0
    certified_and_wrong: int = 0
    uncertified: int = 0
    first: str = ""  # what was wrong

    def add(self, dearer: float, best: float, found: Assignment, what: str) -> None:
        wrong = not dearer <= WRONG * max(1.0, abs(best))
        self.count += 1
        self.wrong += wrong
        self.certified_and_wrong += wrong and found.certified
        self.uncertified += not found.certified
        if wrong and not self.first:
            self.first = f"{what}: {dearer:g} dearer than {best:g}, {found.method}, {found.reason}"


def size_of(rng: Generator) -> int:
    return int(rng.integers(1, 61) if rng.random() < 0.97 else rng.integers(61, 301))


def shape_of(rng: Generator) -> tuple[int, int]:
    size = size_of(rng)
    if rng.random() < 0.75:
        return size, size
    other = max(1, int(size * rng.uniform(0.3, 1)))
    return (size, other) if rng.random() < 0.5 else (other, size)


def ordinary(rng: Generator, shape: tuple[int, int]) -> Array:
    """Uniform, normal, sums of row and column parts, distances in the plane, or near a product of ranks."""
    n, m = shape
    kind = rng.integers(5)
    if kind == 0:
        return rng.uniform(0, 1, shape)
    if kind == 1:
        return rng.normal(size=shape)
    if kind == 2:
        return rng.uniform(0, 3, (n, 1)) + rng.uniform(0, 3, m) + 0.1 * rng.uniform(0, 1, shape)
    if kind == 3:
        return np.hypot(*(rng.uniform(0, 1, (n, 1)) - rng.uniform(0, 1, m) for _ in range(2)))
    return np.outer(np.arange(1, n + 1), np.arange(1, m + 1)) / (n * m) + 0.01 * rng.uniform(0, 1, shape)


def some(rng: Generator, shape: tuple[int, int], share: float) -> Array:
    """A mask that leaves a complete matching free."""
    n, m = shape
    mask = rng.random(shape) < share
    few = min(n, m)
    mask[rng.permutation(n)[:few], rng.permutation(m)[:few]] = False
    return mask


def big(rng: Generator) -> float:
    return float(10.0 ** rng.integers(1, 13)) if rng.random() < 0.9 else float(10.0 ** rng.choice([20, 30]))


def outliers(rng: Generator) -> Array:
    cost = ordinary(rng, shape := shape_of(rng))
    mask = rng.random(shape) < rng.choice([0.01, 0.1, 0.5])
    cost[mask] = big(rng) * rng.uniform(0.5, 1, int(mask.sum()))
    return cost


def negative_outliers(rng: Generator) -> Array:
    cost = ordinary(rng, shape := shape_of(rng))
    cost[rng.random(shape) < rng.choice([0.002, 0.02, 0.3])] = -big(rng)
    return cost


def big_numbers(rng: Generator) -> Array:
    cost = ordinary(rng, shape := shape_of(rng))
    cost[some(rng, shape, rng.choice([0.1, 0.4, 0.8, 0.97]))] = big(rng)
    return cost


def infinite(rng: Generator) -> Array:
    cost = ordinary(rng, shape := shape_of(rng))
    cost[some(rng, shape, rng.choice([0.1, 0.4, 0.8, 0.97]))] = np.inf
    return cost


def mixed_limits(rng: Generator) -> Array:
    cost = big_numbers(rng)
    cost[some(rng, cost.shape, 0.2)] = np.inf
    return cost


def lines(rng: Generator) -> Array:
    """A row or a column, or some, far above or below the others."""
    cost = ordinary(rng, shape_of(rng))
    for _ in range(rng.integers(1, 4)):
        axis = int(rng.integers(2))
        line = rng.integers(cost.shape[axis])
        np.moveaxis(cost, axis, 0)[line] += rng.choice([-1, 1]) * big(rng)
    return cost.clip(-1e30, 1e30)


def ties(rng: Generator) -> Array:
    n, m = shape_of(rng)
    kind = rng.integers(5)
    if kind == 0:
        return np.full((n, m), rng.choice([0.0, 1.0, -3.7, 0.1, 1e9]))
    if kind == 1:
        return rng.integers(0, int(rng.integers(2, 6)), (n, m)).astype(float)
    if kind == 2:
        return ordinary(rng, (n, m))[rng.integers(0, n, n)][:, rng.integers(0, m, m)]
    if kind == 3:  # equal but for rounding
        return rng.uniform(0, 1, (n, 1)) + rng.uniform(0, 1, m)
    return np.where(rng.random((n, m)) < 0.5, 0.0, big(rng))


def scaled(rng: Generator, scales: list[float]) -> Array:
    cost = ordinary(rng, shape_of(rng))
    return cost * rng.choice(scales)


def offsets(rng: Generator) -> Array:
    """Seconds and milliseconds since 1970, prices, and larger."""
    offset, unit = ((1.7e9, 60.0), (1.7e12, 6e4), (2e7, 20.0), (1e12, 1.0), (-1e9, 1e-3))[rng.integers(5)]
    cost = offset + unit * ordinary(rng, shape_of(rng))
    return cost.round() if rng.random() < 0.3 else cost


def heavy_tails(rng: Generator) -> Array:
    shape = shape_of(rng)
    kind = rng.integers(4)
    if kind == 0:
        return rng.lognormal(0, rng.choice([2, 5, 12]), shape)
    if kind == 1:
        return rng.standard_cauchy(shape)
    if kind == 2:
        return rng.pareto(0.3, shape)
    return 10 ** rng.uniform(0, 12, shape)


def integers(rng: Generator) -> Any:
    """Types that hold whole numbers, as arrays, tensors and lists."""
    shape = shape_of(rng)
    kind = rng.integers(8)
    if kind == 0:
        return rng.integers(-(2**53), 2**53, shape)
    if kind == 1:
        return rng.integers(0, 2**53, shape, dtype=np.uint64)
    if kind == 2:
        return torch.from_numpy(20_000_000 + rng.integers(0, 20, shape))
    if kind == 3:
        return (20_000_000 + rng.integers(0, 20, shape)).tolist()
    if kind == 4:
        return rng.random(shape) < 0.5
    if kind == 5:
        return torch.from_numpy(rng.random(shape) < 0.5)
    if kind == 6:
        return rng.integers(-128, 128, shape).astype(np.int8)
    return rng.integers(0, 60_000, shape).astype(">u2")


def floats(rng: Generator) -> Any:
    """Other precisions, byte orders and strides."""
    cost = ordinary(rng, shape_of(rng))
    kind = rng.integers(7)
    if kind < 3:
        return torch.from_numpy(cost).to((torch.float16, torch.bfloat16, torch.float32)[kind])
    if kind == 3:
        return cost.astype(">f8")[::-1]
    if kind == 4:
        return np.asfortranarray(cost.astype(np.float32))[:, ::-1]
    if kind == 5:
        return torch.from_numpy(cost).requires_grad_()
    return cost.tolist()


KINDS: dict[str, Callable[[Generator], Any]] = {
    "outliers": outliers,
    "negative outliers": negative_outliers,
    "forbidden: big numbers": big_numbers,
    "forbidden: inf": infinite,
    "forbidden: both": mixed_limits,
    "rows and columns apart": lines,
    "ties": ties,
    "tiny scales": partial(scaled, scales=[1e-6, 1e-12, 1e-30, 1e-100, 1e-300, 1e-310, 5e-322]),
    "huge scales": partial(scaled, scales=[1e6, 1e15, 1e20, 1e28]),
    "offsets": offsets,
    "heavy tails": heavy_tails,
    "whole numbers": integers,
    "floats of all sorts": floats,
}


def as_float64(cost: Any) -> Array:
    if isinstance(cost, torch.Tensor):
        return cost.detach().double().numpy()
    return np.asarray(cost).astype(np.float64)


def previous_of(rng: Generator, cost: Array) -> Assignment:
    """Stale, unrelated, or with prices that mean nothing, of a matrix of this shape."""
    n, m = cost.shape
    base = np.where(np.isfinite(cost), cost, 0.0)
    noise = rng.choice([1e-9, 1e-3, 1.0]) * rng.normal(size=(n, m)) * (np.abs(base).max() or 1.0)
    old = solve(base + np.clip(noise, -1e200, 1e200) if rng.random() < 0.7 else rng.normal(size=(n, m)), method="dense")
    kind = rng.integers(6)
    prices = old.prices
    if kind == 1:
        prices = prices.clamp(-1e30, 1e30).float()
    elif kind == 2:
        prices = torch.full_like(prices, float(rng.choice([1e12, 1e300, -1e300])))
    elif kind == 3:
        prices = torch.from_numpy(rng.normal(size=m) * rng.choice([1.0, 1e12, 1e300]))
    elif kind == 4:
        prices = torch.zeros_like(prices)
    permutation = old.permutation
    if kind == 5:
        permutation = permutation[torch.from_numpy(rng.permutation(n))]
    return replace(old, prices=prices, permutation=permutation)


def cost_of(cost: Array, permutation: Array) -> float:
    rows = np.flatnonzero(permutation >= 0)
    assert len(rows) == min(cost.shape) == len(set(permutation[rows]))
    return math.fsum(cost[rows, permutation[rows]])


def solve_one(kind: str, seed: int, tally: Tally, *, warm: float) -> None:
    """``warm`` is the share of solves that begin with a previous result."""
    rng = np.random.default_rng([seed, *kind.encode()])
    given = KINDS[kind](rng)
    cost = as_float64(given)
    kept = cost.copy()
    rows, columns = linear_sum_assignment(cost)
    best = math.fsum(cost[rows, columns])
    previous = previous_of(rng, cost) if rng.random() < warm else None
    method = METHODS[rng.integers(3)]
    found = solve(given, previous=previous, method=method)
    assert np.array_equal(as_float64(given), kept), "the input was changed"
    mine = cost_of(cost, found.permutation.numpy())
    what = f"{kind}, seed {seed}, {cost.shape}, {method}, previous: {previous is not None}"
    assert math.isfinite(mine), what
    tally.add(mine - best, best, found, what)


def assign_one(seed: int, tally: Tally, *, warm: float) -> None:
    """Class means and prototypes of odd lengths, unseen classes, every precision, previous results of others."""
    rng = np.random.default_rng([seed, 1])
    c, d = size_of(rng), int(rng.integers(2, 20))
    means, prototypes = rng.normal(size=(c, d)), rng.normal(size=(c, d))
    prototypes /= np.linalg.norm(prototypes, axis=1, keepdims=True)
    means[rng.random(c) < rng.choice([0.0, 0.3])] = 0
    means *= rng.choice([1.0, 1e-6, 1e6, 1e30]) if rng.random() < 0.5 else rng.lognormal(0, 3, (c, 1))
    kind = rng.integers(5)
    if kind == 1:
        prototypes[rng.random(c) < 0.1] *= big(rng) % 1e13
    elif kind == 2:
        prototypes *= rng.lognormal(0, 2, (c, 1))
    elif kind == 3:
        prototypes *= rng.choice([1e-6, 1e-15, 1e6, 1e12])
    elif kind == 4:
        prototypes = prototypes[rng.integers(0, c, c)]
    dtype = (torch.float32, torch.float64, torch.float64)[rng.integers(3)]
    q, w = torch.from_numpy(means).to(dtype), torch.from_numpy(prototypes).to(dtype)
    cost = -reference.scores(q.double(), w.double()).numpy()
    rows, columns = linear_sum_assignment(cost)
    best = math.fsum(cost[rows, columns])
    previous = previous_of(rng, cost) if rng.random() < warm else None
    method = METHODS[rng.integers(3)]
    found = assign(q, w, previous=previous, method=method)
    mine = cost_of(cost, found.permutation.numpy())
    tally.add(
        mine - best, best, found, f"assign, seed {seed}, {cost.shape}, kind {kind}, {method}, {previous is not None}"
    )
