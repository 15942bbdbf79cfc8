"""The public functions and the descents on the triton backend, against float64: on a GPU, or under the interpreter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from fastproto import functional as F
from fastproto import reference
from fastproto.backend import Choice, use_backend
from fastproto.ops import gaussian_potential as P
from fastproto.ops import uniformity_loss as uniformity
from fastproto.prototypes import estimate_prototypes
from fastproto.prototypes import sgd as descent
from fastproto.prototypes.effort import Effort
from fastproto.prototypes.energy import energy
from fastproto.prototypes.search import random_start

from ..helpers import assert_as_accurate_as, unit_rows
from ..kernel_device import DEVICE, needs_cuda, record_kernels  # it skips the file where the kernels cannot run

SHAPES = [(64, 32), (37, 17), (2, 2), (130, 3), (20, 100)]


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the kernels that the test launches; everything in it asks for Triton."""
    launched = record_kernels(monkeypatch, P, descent)
    with use_backend("triton"):
        yield launched


def rows(count: int, dim: int) -> Tensor:
    return unit_rows(count, dim).to(DEVICE)


def some(*indices: int) -> Tensor:
    return torch.tensor(indices, device=DEVICE)


# --- gaussian_potential


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("t", [2.0, 15.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_gaussian_potential(shape: tuple[int, int], t: float, weighted: bool, calls: list[str]) -> None:
    count, dim = shape
    w = rows(count, dim)
    weights = torch.rand(count, device=DEVICE) if weighted else None
    own = torch.arange(count, device=DEVICE)
    part = torch.randperm(count, device=DEVICE)[: 1 + count // 3]
    full = F.gaussian_potential(w, t=t, weights=weights)
    piece = F.gaussian_potential(w[part], w, t=t, self_index=part, weights=weights)
    assert calls == ["gaussian_potential"] * 2
    heavy = None if weights is None else weights.double()
    for ours, chosen in ((full, own), (piece, part)):
        torchs = reference.gaussian_potential(w[chosen], w, t, chosen, weights)
        truth = reference.gaussian_potential(w[chosen].double(), w.double(), t, chosen, heavy)
        for our, plain, true in zip(ours, torchs, truth, strict=True):
            assert our.dtype == torch.float32
            assert_as_accurate_as(our, plain, true)


@pytest.mark.parametrize("backend", ["triton", "torch"])
@pytest.mark.parametrize("precision", ["highest", "high"])
def test_minus_one_leaves_out_no_pair(backend: str, precision: str) -> None:
    w = rows(30, 6)
    points = torch.cat([w[[4, 7]], rows(2, 6)])
    with use_backend(backend):
        potential, _ = F.gaussian_potential(points, w, self_index=some(4, 7, -1, -1), precision=precision)
    truth = torch.exp(4 * (points.double() @ w.double().T - 1))
    truth[0, 4] = truth[1, 7] = 0
    torch.testing.assert_close(potential.double(), truth.sum(1), rtol=1e-3 if precision == "high" else 1e-5, atol=0)


@pytest.mark.parametrize("backend", ["triton", "torch"])
@pytest.mark.parametrize("dtype", [torch.float16, pytest.param(torch.bfloat16, marks=needs_cuda)])
def test_half_precision_rows_are_the_float32_rows_they_are(backend: str, dtype: torch.dtype) -> None:
    w = rows(40, 12).to(dtype)
    with use_backend(backend):
        ours, wide = F.gaussian_potential(w), F.gaussian_potential(w.float())
    for our, plain in zip(ours, wide, strict=True):
        assert our.dtype == torch.float32
        torch.testing.assert_close(our, plain)


@pytest.mark.parametrize(("precision", "bound"), [("highest", 1e-5), ("high", 1e-3), ("medium", 1e-2)])
@pytest.mark.parametrize("dim", [2, 64])
@pytest.mark.parametrize("t", [2.0, 8.0])
def test_precisions_keep_their_promise(precision: str, bound: float, dim: int, t: float) -> None:
    """At t = 8 half precision would not: the products are then float32."""
    w = rows(400, dim)
    part = torch.arange(64, device=DEVICE)
    pull = F.gaussian_potential(w[part], w, t=t, self_index=part, precision=precision)[1].double()
    true = reference.gaussian_potential(w[part].double(), w.double(), t, part)[1]
    p = w[part].double()
    pull, true = (x - (x * p).sum(1, keepdim=True) * p for x in (pull, true))
    assert float((pull - true).norm() / true.norm()) <= bound


@pytest.mark.parametrize("precision", ["medium", "high"])
@pytest.mark.parametrize(("dim", "passed_on"), [(31, "highest"), (32, None)])
def test_weights_in_few_dimensions_stay_float32(
    precision: str, dim: int, passed_on: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bfloat16 halves, which weights need, would miss the promised error there."""
    seen: list[str] = []

    def launcher(points: Tensor, *_: Any, precision: str, **__: Any) -> tuple[Tensor, Tensor]:
        seen.append(precision)
        return points[:, 0], points

    monkeypatch.setattr(P, "kernel", lambda op: launcher)
    P.potential_and_pull(rows(5, dim), None, 2.0, weights=torch.ones(5, device=DEVICE), precision=precision)
    assert seen == [passed_on or precision]


# --- L_uni


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("form", ["pairs", "eq5"])
@pytest.mark.parametrize("t", [2.0, 50.0])
@pytest.mark.parametrize("partly", [False, True])
def test_uniformity_loss(shape: tuple[int, int], form: str, t: float, partly: bool, calls: list[str]) -> None:
    count, dim = shape
    subset = torch.randperm(count, device=DEVICE)[: 1 + count // 3] if partly else None
    w = (torch.rand(count, 1, device=DEVICE) + 0.5) * rows(count, dim)
    w.requires_grad_()
    exact = w.detach().double().requires_grad_()
    ours = F.uniformity_loss(w, t=t, subset=subset, form=form)
    true = reference.uniformity_loss(exact, t, subset, form)
    (gradient,) = torch.autograd.grad(3 * ours, w)
    (expected,) = torch.autograd.grad(3 * true, exact)
    assert calls == ["gaussian_potential"] * (2 if partly else 1)
    rounding = 1e-6 * t  # 2t times the rounding of a cosine
    torch.testing.assert_close(ours.double(), true, rtol=rounding, atol=rounding)
    torch.testing.assert_close(gradient.double(), expected, rtol=0, atol=2 * rounding * float(expected.norm()) + 1e-9)


def test_uniformity_loss_at_any_sharpness() -> None:
    """At t = 400 every g is below float32's range: potentials are taken relative to the closest pair of the loss."""
    w = rows(40, 5).requires_grad_()
    for subset in (None, some(3, 30, 8)):
        exact = w.detach().double().requires_grad_()
        ours, true = F.uniformity_loss(w, t=400.0, subset=subset), reference.uniformity_loss(exact, 400.0, subset)
        assert ours.item() == pytest.approx(true.item(), abs=1e-3)
        (gradient,) = torch.autograd.grad(ours, w)
        (expected,) = torch.autograd.grad(true, exact)
        assert float((gradient - expected).norm()) <= 1e-3 * float(expected.norm())


def test_uniformity_loss_of_coincident_and_of_opposite_points() -> None:
    same = torch.ones(4, 3, device=DEVICE, requires_grad=True)
    loss = F.uniformity_loss(same, t=50.0)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-4)
    assert same.grad is not None and torch.isfinite(same.grad).all()
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], device=DEVICE)
    assert F.uniformity_loss(opposite, t=300.0).item() == pytest.approx(-1200.0)


@pytest.mark.parametrize("t", [2.0, 50.0])
def test_autocast_changes_nothing(t: float) -> None:
    w = rows(30, 8)
    plain = F.uniformity_loss(w, t=t), *F.gaussian_potential(w, t=t)
    with torch.autocast(DEVICE.type, torch.bfloat16):
        inside = F.uniformity_loss(w, t=t), *F.gaussian_potential(w, t=t)
    assert all(torch.equal(a, b) for a, b in zip(plain, inside, strict=True))


def test_five_runs_same_bits() -> None:
    w = rows(150, 20).requires_grad_()

    def run() -> list[Tensor]:
        value = F.uniformity_loss(w, subset=some(5, 2, 70))
        return [value.detach(), *torch.autograd.grad(value, w)]

    first = run()
    for _ in range(4):
        assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))


def test_registered_operators_on_the_kernels() -> None:
    w, ops = rows(20, 6), torch.ops.fastproto
    torch.library.opcheck(ops.gaussian_potential.default, (w, None, 2.0, None, None, "highest"))
    torch.library.opcheck(
        ops.gaussian_potential.default, (w[:2], w, 2.0, some(0, -1), torch.ones(20, device=DEVICE), "highest")
    )
    torch.library.opcheck(ops.uniformity_loss.default, (w, 2.0, None, "pairs", "highest", True))
    torch.library.opcheck(ops.uniformity_loss.default, (w, 30.0, some(4, 2), "eq5", "highest", False))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_on_the_kernels(calls: list[str]) -> None:
    """The backend is chosen when the compiled function runs, not when it is traced."""
    compiled = torch.compile(lambda w, rows: F.uniformity_loss(2 * w, subset=rows), fullgraph=True, backend="aot_eager")
    w, subset = rows(25, 6), some(3, 8, 20)
    results = []
    for function in (compiled, lambda w, rows: F.uniformity_loss(2 * w, subset=rows)):
        x = w.clone().requires_grad_()
        value = function(x, subset)
        results.append((value.detach(), *torch.autograd.grad(value, x)))
    assert len(calls) == 4
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    with use_backend("torch"), torch.compiler.set_stance("fail_on_recompile"):
        torch.testing.assert_close(compiled(w.clone().requires_grad_(), subset).detach(), results[0][0])
    assert len(calls) == 4


@pytest.mark.parametrize("t", [2.0, 50.0])
@pytest.mark.parametrize("subset", [None, 5])
def test_nothing_is_read_back(t: float, subset: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Meta tensors have no numbers: whatever would wait for a GPU to look at one fails on them."""

    def launcher(points: Tensor, others: Tensor, **_: Any) -> tuple[Tensor, Tensor]:
        return points.new_empty(len(points)), points.new_empty(points.shape)

    for module in (P, uniformity, descent):
        monkeypatch.setattr(module, "resolve", lambda *_, **__: Choice("triton", "pretended"))
    monkeypatch.setattr(P, "kernel", lambda op: launcher)
    w = torch.empty(5000, 3, device="meta")
    chosen = None if subset is None else torch.empty(subset, dtype=torch.int64, device="meta")
    for form in ("pairs", "eq5"):
        value, gradient = uniformity._value_and_gradient(w, t, chosen, form, "highest", True)
        assert value.shape == () and gradient.shape == w.shape and gradient.dtype == torch.float32


@needs_cuda
@pytest.mark.parametrize("t", [2.0, 50.0])
def test_inside_a_cuda_graph_and_without_a_wait(t: float) -> None:
    w, subset = rows(300, 64), torch.arange(40, device=DEVICE)

    def step() -> tuple[Tensor, ...]:
        x = w.detach().requires_grad_()
        value = F.uniformity_loss(x, t=t, subset=subset)
        return value.detach(), *torch.autograd.grad(value, x)

    eager = step()
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(eager, captured, strict=True))


# --- the descents


@pytest.mark.parametrize("t", [2.0, 64.0])
def test_energy_of_the_optimiser(t: float, calls: list[str]) -> None:
    """t = 64 is beyond what float32 holds without a centre."""
    w = rows(60, 7)
    value, gradient = energy(t)(w)
    assert calls == ["gaussian_potential"]
    with use_backend("torch"):
        true, expected = energy(t)(w.double())
    assert value == pytest.approx(true, rel=1e-6 * t)
    assert float((gradient - expected).norm()) <= 1e-6 * t * float(expected.norm())


@pytest.mark.parametrize("form", ["eq5", "within_batch"])
def test_sgd_steps_with_the_sphere_kernel(form: str, calls: list[str]) -> None:
    start = random_start(40, 6, 0).to(DEVICE)
    effort = Effort()
    moved = descent.sgd(start.float(), 2.0, effort, form=form, subset_size=15, iterations=5, lr=2.0)
    assert calls.count("sphere_step_") == 5
    assert calls.count("gaussian_potential") == 5 * (2 if form == "eq5" else 1)
    with use_backend("torch"):
        exact = Effort()
        expected = descent.sgd(start, 2.0, exact, form=form, subset_size=15, iterations=5, lr=2.0)
    assert len(calls) <= 15
    torch.testing.assert_close(moved.double(), expected, rtol=0, atol=3e-6)
    torch.testing.assert_close(torch.tensor(effort.trace), torch.tensor(exact.trace), rtol=1e-5, atol=1e-5)
    assert float((moved - start).norm()) > 0.05


@needs_cuda
def test_prototypes_are_estimated_on_the_gpu() -> None:
    found = estimate_prototypes(2000, 64, device=DEVICE, cache=False, max_passes=30)
    with use_backend("torch"):
        expected = estimate_prototypes(2000, 64, cache=False, max_passes=30)
    assert found.quality.uniformity == pytest.approx(expected.quality.uniformity, abs=2e-4)
