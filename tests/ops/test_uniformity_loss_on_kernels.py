"""L_uni on the triton backend: on a GPU, or under the interpreter."""

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

from ..kernel_device import DEVICE, needs_cuda, on_kernels, rows, some  # it skips the file where the kernels cannot run

SHAPES = [(64, 32), (37, 17), (2, 2), (130, 3), (20, 100)]


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the kernels that the test launches; everything in it asks for Triton."""
    with on_kernels(monkeypatch, P) as launched:
        yield launched


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

    for module in (P, uniformity):
        monkeypatch.setattr(module, "resolve", lambda *_, **__: Choice("triton", "pretended"))
    monkeypatch.setattr(P, "kernel", lambda op: launcher)
    w = torch.empty(5000, 3, device="meta")
    chosen = None if subset is None else torch.empty(subset, dtype=torch.int64, device="meta")
    for form in ("pairs", "eq5"):
        value, gradient = uniformity.value_and_gradient(w, t, chosen, form, "highest", True)
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
