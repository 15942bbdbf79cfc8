"""The searches for prototypes on the triton backend: on a GPU, or under the interpreter."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from fastproto.backend import use_backend
from fastproto.ops import gaussian_potential as P
from fastproto.ops import sphere_step as sphere
from fastproto.prototypes import estimate_prototypes
from fastproto.prototypes import sgd as descent
from fastproto.prototypes.budget import Budget
from fastproto.prototypes.energy import energy
from fastproto.prototypes.starts import random_start

from ..helpers import unit_rows
from ..kernel_device import DEVICE, needs_cuda, on_kernels  # it skips the file where the kernels cannot run


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the kernels that the test launches; everything in it asks for Triton."""
    with on_kernels(monkeypatch, P, sphere) as launched:
        yield launched


@pytest.mark.parametrize("t", [2.0, 64.0])
def test_energy_of_the_optimiser(t: float, calls: list[str]) -> None:
    """t = 64 is beyond what float32 holds without a centre."""
    w = unit_rows(60, 7).to(DEVICE)
    value, gradient = energy(t)(w)
    assert calls == ["gaussian_potential"]
    with use_backend("torch"):
        true, expected = energy(t)(w.double())
    assert value == pytest.approx(true, rel=1e-6 * t)
    assert float((gradient - expected).norm()) <= 1e-6 * t * float(expected.norm())


@pytest.mark.parametrize("form", ["eq5", "within_batch"])
def test_sgd_steps_with_the_sphere_kernel(form: str, calls: list[str]) -> None:
    start = random_start(40, 6, 0).to(DEVICE)
    budget = Budget()
    moved = descent.sgd(start.float(), 2.0, budget, form=form, subset_size=15, iterations=5, lr=2.0)
    assert calls.count("sphere_step_") == 5
    assert calls.count("gaussian_potential") == 5 * (2 if form == "eq5" else 1)
    with use_backend("torch"):
        exact = Budget()
        expected = descent.sgd(start, 2.0, exact, form=form, subset_size=15, iterations=5, lr=2.0)
    assert len(calls) <= 15
    torch.testing.assert_close(moved.double(), expected, rtol=0, atol=3e-6)
    torch.testing.assert_close(torch.tensor(budget.trace), torch.tensor(exact.trace), rtol=1e-5, atol=1e-5)
    assert float((moved - start).norm()) > 0.05


@needs_cuda
def test_prototypes_are_estimated_on_the_gpu() -> None:
    found = estimate_prototypes(2000, 64, device=DEVICE, cache=False, max_passes=30)
    with use_backend("torch"):
        expected = estimate_prototypes(2000, 64, cache=False, max_passes=30)
    assert found.quality.uniformity == pytest.approx(expected.quality.uniformity, abs=2e-4)
