"""The public functions on thousands of inputs, against the float64 reference and SciPy; bad inputs are refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from fastproto import align, assign, functional, reference, solve

from .exploring import (
    DTYPES,
    LAYOUTS,
    bad_floats,
    bad_labels,
    compute_dtype,
    cosine_error,
    eps,
    explore,
    features_of,
    laid_out,
    made,
    refused,
    same,
    shapes,
    spoil,
    twice,
    unit,
    within,
)

pytestmark = pytest.mark.slow


@dataclass
class Batch:
    """A batch and what it is measured against."""

    features: Tensor
    labels: Tensor
    prototypes: Tensor
    assignment: Tensor
    weight: Tensor | None
    generator: torch.Generator
    what: str

    def __repr__(self) -> str:
        return self.what


@st.composite
def batches(draw: st.DrawFn, large: bool = False) -> Batch:
    b, c, d = draw(shapes())
    if large and draw(st.integers(0, 99)) == 0:  # across the borders of blocks
        b, c = draw(st.sampled_from([(513, 40), (40, 2049), (1025, 3), (3, 4097)]))
    dtype, layout = draw(st.sampled_from(DTYPES)), draw(st.sampled_from(LAYOUTS))
    low, high = (-2, 2) if dtype == torch.float16 else (-7, 12)
    exponent, seed, weighted = draw(st.integers(low, high)), draw(st.integers(0, 2**32)), draw(st.booleans())
    width = draw(st.sampled_from([torch.float32, torch.float32, torch.float64]))
    generator = torch.Generator().manual_seed(seed)
    prototypes = unit(c, d, generator, width)
    weight = torch.randn(b, generator=generator) * 2 if weighted else None
    return Batch(
        laid_out(features_of(b, d, dtype, exponent, prototypes, generator), layout),
        laid_out(torch.randint(0, c, (b,), generator=generator), draw(st.sampled_from(LAYOUTS[::2]))),
        laid_out(prototypes, draw(st.sampled_from(LAYOUTS))),
        torch.randperm(c, generator=generator),
        weight,
        generator,
        f"Batch(B={b}, C={c}, D={d}, {dtype}, {layout}, 1e{exponent}, {width}, weighted={weighted}, seed={seed})",
    )


# --- losses and class means


def test_ipm_loss() -> None:
    def check(case: tuple[Batch, str, str]) -> None:
        batch, reduction, loss = case
        options: dict[str, Any] = {"weight": batch.weight, "reduction": reduction, "loss": loss}
        x = batch.features.detach().requires_grad_()
        found = functional.ipm_loss(x, batch.labels, batch.prototypes, batch.assignment, **options)
        total = found.sum()
        total.backward()
        again = twice(functional.ipm_loss, batch.features, batch.labels, batch.prototypes, batch.assignment, **options)
        assert same(found.detach(), again) and found.dtype == compute_dtype(batch.features)
        exact = batch.features.double(), batch.labels, batch.prototypes.double(), batch.assignment
        omega = torch.ones(len(batch.labels), dtype=torch.float64) if batch.weight is None else batch.weight.double()
        factor = 2.0 if loss == "official" else 1.0
        truth = reference.ipm_loss(*exact, omega, loss)
        delta = cosine_error(x.shape[1], found.dtype)
        residual = (2 * truth / (factor * omega).where(omega != 0, 1.0)).abs().sqrt()
        allowed = factor * omega.abs() * (residual * delta + delta**2) + 8 * eps(found.dtype) * truth.abs() + 1e-37
        share = factor / max(len(omega), 1) if reduction == "mean" else factor
        if reduction == "none":
            within(found, truth, allowed)
        else:
            count = max(len(omega), 1) if reduction == "mean" else 1
            rounding = eps(found.dtype) * len(omega) * truth.abs().sum()
            within(found, truth.sum() / count, (allowed.sum() + rounding) / count)
        slope = reference.ipm_gradient(*exact)
        norm = exact[0].norm(dim=1, keepdim=True)
        scale = share * omega.abs()[:, None]
        least = torch.finfo(x.dtype).smallest_normal
        assert x.grad is not None and x.grad.dtype == x.dtype
        truth = share * omega[:, None] * slope
        rounding = 2 * eps(x.dtype) * truth.abs() + least
        within(x.grad, truth, torch.where(norm > 1e-12, scale * 4 * delta / norm, 0.0) + rounding)

    cases = st.tuples(batches(), st.sampled_from(["mean", "sum", "none"]), st.sampled_from(["eq6", "official"]))
    explore("ipm_loss", cases, check)


def test_ipm_loss_refuses() -> None:
    def check(case: tuple[Batch, int]) -> None:
        b, pick = case
        given = [b.features, b.labels, b.prototypes, b.assignment]
        wrong: list[tuple[int, Any]] = [(0, x) for x in bad_floats(b.features, b.generator)]
        wrong += [(1, y) for y in bad_labels(b.labels, len(b.prototypes))]
        wrong += [(2, b.prototypes.clone().requires_grad_()), (2, b.prototypes.long()), (2, b.prototypes[:, :1])]
        wrong += [(3, b.assignment.int()), (3, b.assignment[1:]), (3, b.assignment.tolist())]
        if len(b.labels):
            used = b.assignment[b.labels[0]]
            for value in (1.5, torch.nan, 0.0):
                w = b.prototypes.clone()
                w[used] = w[used] * value
                wrong.append((2, w))
            a = b.assignment.clone()
            a[b.labels[0]] = [-1, len(a), 1 << 40][pick % 3]
            wrong.append((3, a))
        at, value = wrong[pick % len(wrong)]
        given[at] = made(value)
        refused(functional.ipm_loss, *given)
        given[at] = [b.features, b.labels, b.prototypes, b.assignment][at]
        options: list[dict[str, Any]] = [
            {"reduction": "average"},
            {"loss": "eq7"},
            {"nan_policy": "keep"},
            {"weight": torch.ones(len(b.labels) + 1)},
            {"weight": torch.full((len(b.labels),), torch.nan)} if len(b.labels) else {"reduction": ""},
        ]
        refused(functional.ipm_loss, *given, **options[pick % len(options)])

    explore("ipm_loss, bad inputs", st.tuples(batches(), st.integers(0, 10_000)), check)


def test_ipm_loss_skips_bad_rows() -> None:
    def check(b: Batch) -> None:
        if not len(b.labels):
            return
        x = spoil(b.features, [torch.nan, torch.inf, -torch.inf][len(b.labels) % 3], b.generator)
        bad = ~x.isfinite().all(1)
        found = twice(functional.ipm_loss, x, b.labels, b.prototypes, b.assignment, reduction="none", nan_policy="skip")
        alone = functional.ipm_loss(x[~bad], b.labels[~bad], b.prototypes, b.assignment, reduction="none")
        assert bool((found[bad] == 0).all())
        within(found[~bad], alone.double(), 4 * eps(found.dtype))

    explore("ipm_loss, nan_policy='skip'", batches(), check)


def test_update_class_means() -> None:
    def check(case: tuple[Batch, float, torch.dtype, str]) -> None:
        b, momentum, dtype, layout = case
        means = torch.randn(b.prototypes.shape, generator=b.generator, dtype=torch.float64).to(dtype)
        given = laid_out(means, layout)
        found = twice(functional.update_class_means, given, b.features, b.labels, momentum)
        functional.update_class_means_(given, b.features, b.labels, momentum)
        truth = reference.update_class_means(means.double(), b.features.double(), b.labels, momentum)
        rounding = eps(torch.float32 if b.features.dtype != torch.float64 else dtype)
        width = max(rounding, eps(dtype))
        allowed = (len(b.labels) + b.features.shape[1] + 8) * width * (1 + means.double().abs())
        within(found, truth, allowed)
        within(given, truth, allowed)  # not the same bits where only one of the two is contiguous
        untouched = torch.ones(len(means), dtype=torch.bool).index_fill(0, b.labels, False)
        assert same(found[untouched], means[untouched])

    cases = st.tuples(
        batches(),
        st.floats(0, 1, exclude_max=True, allow_subnormal=False),
        st.sampled_from([torch.float32, torch.float64]),
        st.sampled_from(LAYOUTS),
    )
    explore("update_class_means", cases, check)


def test_update_class_means_refuses() -> None:
    def check(case: tuple[Batch, int]) -> None:
        b, pick = case
        means = b.prototypes.float().contiguous()
        given: list[Any] = [means, b.features, b.labels, 0.9]
        wrong: list[tuple[int, Any]] = [(1, x) for x in bad_floats(b.features, b.generator)]
        wrong += [(2, y) for y in bad_labels(b.labels, len(means))]
        wrong += [(0, means.half()), (0, means.long()), (0, means[0]), (0, means[:, :1])]
        wrong += [(3, value) for value in (1.0, -0.1, float("nan"), float("inf"), 2)]
        at, value = wrong[pick % len(wrong)]
        given[at] = made(value)
        for function in (functional.update_class_means, functional.update_class_means_):
            refused(function, *given)

    explore("update_class_means, bad inputs", st.tuples(batches(), st.integers(0, 10_000)), check)


# --- nearest prototypes


def test_nearest_prototypes() -> None:
    def check(case: tuple[Batch, float]) -> None:
        b, share = case
        count = len(b.prototypes)
        k = max(1, round(share * count))
        cosines, rows = twice(functional.nearest_prototypes, b.features, b.prototypes, k)
        assert cosines.dtype == compute_dtype(b.features) and rows.dtype == torch.int64
        truth = reference.normalise(b.features.double()) @ b.prototypes.double().T
        # prototypes are rounded to the width of the features
        delta = cosine_error(b.features.shape[1], cosines.dtype)
        within(cosines, truth.sort(1, descending=True).values[:, :k], delta)
        within(cosines, truth.gather(1, rows), delta)
        assert bool((cosines[:, 1:] <= cosines[:, :-1]).all())
        assert bool((rows.sort(1).values.diff(dim=1) > 0).all())  # none twice

    explore("nearest_prototypes", st.tuples(batches(large=True), st.floats(0, 1) | st.just(0.0)), check)


def test_nearest_prototypes_refuses() -> None:
    def check(case: tuple[Batch, int]) -> None:
        b, pick = case
        given: list[Any] = [b.features, b.prototypes, 1]
        wrong: list[tuple[int, Any]] = [(0, x) for x in bad_floats(b.features, b.generator, rows_may_differ=True)]
        wrong += [(1, x) for x in bad_floats(b.prototypes, b.generator, rows_may_differ=True)]
        wrong += [
            (1, b.prototypes * 1.5),
            (1, lambda: torch.cat([b.prototypes, b.prototypes], 1)),
            (2, 0),
            (2, -1),
            (2, len(b.prototypes) + 1),
        ]
        at, value = wrong[pick % len(wrong)]
        given[at] = made(value)
        refused(functional.nearest_prototypes, *given)

    explore("nearest_prototypes, bad inputs", st.tuples(batches(), st.integers(0, 10_000)), check)


# --- the Gaussian potential and L_uni


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


# --- assignment


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
