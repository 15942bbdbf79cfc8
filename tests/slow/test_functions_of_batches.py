"""ipm_loss, update_class_means and nearest_prototypes on thousands of batches, against the float64 reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from torch import Tensor

from fastproto import functional, reference

from .exploring import compute_dtype, cosine_error, eps, explore, refused, same, twice, within
from .inputs import DTYPES, LAYOUTS, bad_floats, bad_labels, features_of, laid_out, made, shapes, spoil, unit

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
