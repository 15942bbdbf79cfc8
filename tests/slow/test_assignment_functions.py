"""assign, solve and align on thousands of inputs, against the float64 reference and SciPy."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from fastproto import align, assign, reference, solve

from .exploring import eps, explore, refused, same, within
from .inputs import DTYPES, LAYOUTS, bad_floats, laid_out, made, shapes, spoil, unit

pytestmark = pytest.mark.slow


@st.composite
def factors(draw: st.DrawFn) -> tuple[Tensor, Tensor, torch.Generator]:
    _, c, d = draw(shapes())
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["random", "clustered", "ties", "unseen", "solved"]))
    w = unit(c, d, generator, draw(st.sampled_from([torch.float32, torch.float64])))
    q = torch.randn(c, d, generator=generator, dtype=torch.float64)
    if kind == "clustered":
        q = q[:1] + 1e-3 * q
    elif kind == "ties":
        q = q[torch.randint(0, max(1, c // 4), (c,), generator=generator)]
    elif kind == "unseen":
        q = q * (torch.rand(c, 1, generator=generator) < 0.6)
    elif kind == "solved":
        q = w.double()[torch.randperm(c, generator=generator)] + 1e-4 * q
    q = (q * 10.0 ** draw(st.integers(-3, 3))).to(draw(st.sampled_from(DTYPES)))
    layouts = st.sampled_from(LAYOUTS)
    return laid_out(q, draw(layouts)), laid_out(w, draw(layouts)), generator


def valid(permutation: Tensor, size: int) -> bool:
    return permutation.dtype == torch.int64 and permutation.sort().values.tolist() == list(range(size))


def test_assign() -> None:
    def check(case: tuple[tuple[Tensor, Tensor, torch.Generator], str, bool]) -> None:
        (q, w, generator), method, again = case
        size = len(q)
        scores = reference.scores(q.double(), w.double())
        spread = float(scores.std(correction=0))
        best = float(reference.objective(scores, reference.best_assignment(scores)))
        previous = None
        if again:
            nudged = q.double() * (1 + 0.1 * torch.randn(q.shape, generator=generator, dtype=torch.float64))
            previous = assign(nudged, w, method=method)
        before = [x.clone() for x in (q, w)]
        found, second = (assign(q, w, method=method, previous=previous) for _ in range(2))
        assert same(found.permutation, second.permutation) and same(found.prices, second.prices)
        assert same(before[0], q) and same(before[1], w)
        assert valid(found.permutation, size) and found.prices.shape == (size,) and found.certified
        rounding = 1e-12 * size
        own = float(reference.objective(scores, found.permutation))
        assert own == pytest.approx(found.objective, abs=rounding)
        assert found.gap >= 0 and own >= best - 1e-6 * size * spread - rounding
        assert own + found.gap + found.rounding_floor >= best - rounding
        gap = float(reference.duality_gap(scores, found.permutation, found.prices))
        assert gap <= found.gap + found.rounding_floor + rounding
        if previous is not None:
            assert found.changed == int((found.permutation != previous.permutation).sum())

    methods = st.sampled_from(["auto", "dense", "column_generation"])
    explore("assign", st.tuples(factors(), methods, st.booleans()), check)


def test_assign_refuses() -> None:
    def check(case: tuple[tuple[Tensor, Tensor, torch.Generator], int]) -> None:
        (q, w, generator), pick = case
        wrong: list[tuple[list[Any], dict[str, Any]]] = [([x, w], {}) for x in bad_floats(q, generator)]
        wrong += [([q, x], {}) for x in bad_floats(w, generator)]
        wrong += [([q, w], {"method": "fast"}), ([q, w], {"tolerance": -1.0}), ([q, w], {"tolerance": float("nan")})]
        given, options = wrong[pick % len(wrong)]
        refused(assign, *map(made, given), **options)

    explore("assign, bad inputs", st.tuples(factors(), st.integers(0, 10_000)), check)


@st.composite
def costs(draw: st.DrawFn) -> Tensor:
    size = draw(st.integers(1, 40))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    cost = torch.randn(size, size, generator=generator, dtype=torch.float64) * 10.0 ** draw(st.integers(-6, 6))
    kind = draw(st.sampled_from(["random", "integers", "ties", "sums", "one row"]))
    if kind == "integers":
        cost = torch.randint(-50, 50, (size, size), generator=generator, dtype=torch.float64)
    elif kind == "ties":
        cost = torch.randint(0, 2, (size, size), generator=generator, dtype=torch.float64)
    elif kind == "sums":  # every permutation is as good
        cost = cost[:, :1] + cost[:1]
    elif kind == "one row":
        cost = cost[:1].expand(size, size).clone()
    dtypes = [torch.float64, torch.float32]
    if kind in ("integers", "ties"):
        dtypes += [torch.int64, torch.int32, torch.int8, torch.float16]
    return laid_out(cost.to(draw(st.sampled_from(dtypes))), draw(st.sampled_from(LAYOUTS)))


def test_solve() -> None:
    def check(case: tuple[Tensor, str]) -> None:
        cost, method = case
        size, exact = len(cost), cost.double()
        rows, columns = linear_sum_assignment(exact.numpy())
        best = float(exact.numpy()[rows, columns].sum())
        before = cost.clone()
        found = solve(cost, method=method)
        assert same(before, cost) and same(found.permutation, solve(cost.numpy(), method=method).permutation)
        assert valid(found.permutation, size) and found.certified
        own = float(exact.gather(1, found.permutation[:, None]).sum())
        assert own == pytest.approx(found.objective, abs=1e-12 * size * float(exact.abs().max()))
        assert own <= best + 1e-6 * max(1.0, abs(best))
        warm = solve(cost, previous=found, method=method)
        assert warm.certified and warm.changed == 0

    explore("solve", st.tuples(costs(), st.sampled_from(["auto", "dense", "column_generation"])), check)


def test_solve_refuses() -> None:
    def check(case: tuple[Tensor, int]) -> None:
        cost, pick = case
        generator = torch.Generator().manual_seed(pick)
        wrong: list[tuple[Any, dict[str, Any]]] = [
            (spoil(cost.double(), value, generator), {}) for value in (torch.nan, -torch.inf)
        ]
        wrong += [(cost[0], {}), (cost[None], {}), (cost.to(torch.complex64), {}), (cost, {"method": "fast"})]
        wrong += [(np.array([["a"]]), {})]
        given, options = wrong[pick % len(wrong)]
        refused(solve, given, **options)

    explore("solve, bad inputs", st.tuples(costs(), st.integers(0, 10_000)), check)


def test_align() -> None:
    def check(case: tuple[tuple[Tensor, Tensor, torch.Generator], int]) -> None:
        (q, w, _), starts = case
        before = [x.clone() for x in (q, w)]
        found, second = (align(q, w, starts=starts) for _ in range(2))
        assert same(found.rotation, second.rotation)
        assert same(found.assignment.permutation, second.assignment.permutation)
        assert same(before[0], q) and same(before[1], w)
        dim = w.shape[1]
        exact = found.rotation.double()
        within(exact @ exact.T, torch.eye(dim, dtype=torch.float64), 8 * dim * eps(w.dtype))
        assert valid(found.assignment.permutation, len(q)) and found.assignment.certified
        scores = reference.scores(q.double(), w.double() @ exact)
        own = float(reference.objective(scores, found.assignment.permutation))
        rounding = 8 * dim * len(q) * eps(w.dtype)
        assert own == pytest.approx(found.assignment.objective, abs=rounding)
        plain = assign(q, w)
        assert own >= plain.objective - 1e-6 * len(q) * float(scores.std(correction=0)) - rounding
        assert len(found.objectives) == starts and found.stopped == "converged"

    explore("align", st.tuples(factors(), st.integers(1, 3)), check)


def test_align_refuses() -> None:
    def check(case: tuple[tuple[Tensor, Tensor, torch.Generator], int]) -> None:
        (q, w, generator), pick = case
        wrong: list[tuple[list[Any], dict[str, Any]]] = [([x, w], {}) for x in bad_floats(q, generator)]
        wrong += [([q, x], {}) for x in bad_floats(w, generator)]
        wrong += [([q, w], {"starts": 0}), ([q, w], {"starts": -3})]
        given, options = wrong[pick % len(wrong)]
        refused(align, *map(made, given), **options)

    explore("align, bad inputs", st.tuples(factors(), st.integers(0, 10_000)), check)
