"""gaussian_potential and uniformity_loss on thousands of sets of points, against plain float64."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from torch import Tensor

from fastproto import functional, reference

from .exploring import compute_dtype, cosine_error, eps, explore, refused, same, twice, within
from .inputs import DTYPES, LAYOUTS, bad_floats, laid_out, made, shapes, unit

pytestmark = pytest.mark.slow


@st.composite
def spheres(draw: st.DrawFn) -> tuple[Tensor, Tensor, torch.Generator, float]:
    m, c, d = draw(shapes())
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    dtype = draw(st.sampled_from(DTYPES))
    points, others = (laid_out(unit(n, d, generator, dtype), draw(st.sampled_from(LAYOUTS))) for n in (max(m, 1), c))
    return points, others, generator, draw(st.sampled_from([0.01, 0.5, 1.0, 2.0, 4.0, 8.0, 20.0]))


def test_gaussian_potential() -> None:
    def check(case: tuple[tuple[Tensor, Tensor, torch.Generator, float], bool, bool, bool, str]) -> None:
        (points, others, generator, t), alone, with_self, weighted, precision = case
        own = torch.randint(-1, len(others), (len(points),), generator=generator) if with_self and not alone else None
        against = points if alone else others
        weights = torch.randn(len(against), generator=generator) if weighted else None
        potential, pull = twice(
            functional.gaussian_potential,
            points,
            None if alone else others,
            t=t,
            self_index=own,
            weights=weights,
            precision=precision,
        )
        assert potential.dtype == pull.dtype == compute_dtype(points)
        g = torch.exp(-2 * t * (1 - points.double() @ against.double().T))
        if alone:
            g.fill_diagonal_(0.0)
        if own is not None:
            g[own >= 0, own[own >= 0]] = 0.0
        signed = g if weights is None else g * weights.double()
        rounding = 2 * t * cosine_error(points.shape[1], potential.dtype) + (8 + len(against)) * eps(potential.dtype)
        total = signed.abs().sum(1)
        within(potential, signed.sum(1), rounding * total + 1e-36)
        within(pull, signed @ against.double(), (rounding * total + 1e-36)[:, None])

    cases = st.tuples(
        spheres(), st.booleans(), st.booleans(), st.booleans(), st.sampled_from(["highest", "high", "medium"])
    )
    explore("gaussian_potential", cases, check)


def test_gaussian_potential_refuses() -> None:
    def check(case: tuple[tuple[Tensor, Tensor, torch.Generator, float], int]) -> None:
        (points, others, generator, _), pick = case
        wrong: list[tuple[list[Any], dict[str, Any]]] = [
            ([x, others], {}) for x in bad_floats(points, generator, rows_may_differ=True)
        ]
        wrong += [([points, x], {}) for x in bad_floats(others, generator, rows_may_differ=True) if x is not None]
        wrong += [([points, others], {"t": value}) for value in (0.0, -1.0, float("nan"), float("inf"))]
        wrong += [([points * 1.5, others], {}), ([points, others * 0.5], {}), ([points, others], {"precision": "low"})]
        index = torch.zeros(len(points), dtype=torch.int64)
        wrong += [([points, others], {"self_index": value}) for value in (index - 2, index + len(others), index.int())]
        wrong += [([points, others], {"weights": torch.ones(len(others) + 1)}), ([points], {"self_index": index})]
        given, options = wrong[pick % len(wrong)]
        refused(functional.gaussian_potential, *map(made, given), **options)

    explore("gaussian_potential, bad inputs", st.tuples(spheres(), st.integers(0, 10_000)), check)


@st.composite
def rows_with_subset(draw: st.DrawFn) -> tuple[Tensor, Tensor | None, float, str, torch.Generator]:
    _, c, d = draw(shapes())
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    lengths = 10.0 ** (torch.rand(c, 1, generator=generator, dtype=torch.float64) * 8 - 4)
    w = laid_out((unit(c, d, generator, torch.float64) * lengths).to(dtype), draw(st.sampled_from(LAYOUTS)))
    subset = torch.randperm(c, generator=generator)[: draw(st.integers(1, c))] if draw(st.booleans()) else None
    t = draw(st.sampled_from([0.01, 0.5, 1.0, 2.0, 4.0, 8.0, 40.0]))
    return w, subset, t, draw(st.sampled_from(["pairs", "eq5"])), generator


def test_uniformity_loss() -> None:
    def check(case: tuple[Tensor, Tensor | None, float, str, torch.Generator]) -> None:
        w, subset, t, form, generator = case
        options: dict[str, Any] = {"t": t, "subset": subset, "form": form}
        ours, exact = w.detach().requires_grad_(), w.detach().double().requires_grad_()
        value, truth = functional.uniformity_loss(ours, **options), reference.uniformity_loss(exact, t, subset, form)
        assert same(value.detach(), twice(functional.uniformity_loss, w, **options)) and value.dtype == w.dtype
        delta = 2 * t * cosine_error(w.shape[1], w.dtype) + (8 + len(w)) * eps(w.dtype)
        assert torch.isfinite(value)
        within(value, truth, delta + 4 * eps(w.dtype) * truth.detach().abs())
        value.backward()
        truth.backward()
        assert ours.grad is not None and exact.grad is not None
        length = exact.detach().norm(dim=1, keepdim=True)
        within(ours.grad, exact.grad, 8 * (t + 1) * delta / length)
        turn = torch.linalg.qr(torch.randn(w.shape[1], w.shape[1], generator=generator, dtype=torch.float64))[0]
        if subset is None:
            moved = functional.uniformity_loss((w.double() @ turn)[torch.randperm(len(w), generator=generator)], t=t)
            within(moved, reference.uniformity_loss(w.double(), t), 1e-12 * (1 + t))

    explore("uniformity_loss", rows_with_subset(), check)


def test_uniformity_loss_refuses() -> None:
    def check(case: tuple[tuple[Tensor, Tensor | None, float, str, torch.Generator], int]) -> None:
        (w, _, _, _, generator), pick = case
        zero = w.clone(memory_format=torch.contiguous_format)
        zero[pick % len(w)] = 0
        wrong: list[tuple[Any, dict[str, Any]]] = [(x, {}) for x in bad_floats(w, generator, rows_may_differ=True)]
        wrong += [(zero, {}), (w[:1], {}), (w.half(), {}), (w, {"form": "eq4"}), (w, {"precision": "low"})]
        wrong += [(w, {"t": value}) for value in (0.0, -1.0, float("nan"), float("inf"))]
        subsets = [[], [0, 0], [-1], [len(w)]]
        wrong += [(w, {"subset": torch.tensor(rows, dtype=torch.int64)}) for rows in subsets]
        wrong += [(w, {"subset": torch.tensor([0], dtype=torch.int32)}), (w, {"subset": torch.tensor([[0]])})]
        given, options = wrong[pick % len(wrong)]
        refused(functional.uniformity_loss, made(given), **options)

    explore("uniformity_loss, bad inputs", st.tuples(rows_with_subset(), st.integers(0, 10_000)), check)
