"""L_uni and its gradient against the float64 reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch.autograd import gradcheck

from fastproto import functional as F
from fastproto import reference
from fastproto.support.options import PRECISIONS, Precision

from ..helpers import unit_rows


@pytest.mark.parametrize("form", ["pairs", "eq5"])
@pytest.mark.parametrize("subset", [None, [3], [0, 5, 2], list(range(11))])
def test_uniformity_loss(form: str, subset: list[int] | None) -> None:
    rows = None if subset is None else torch.tensor(subset)
    w = torch.randn(11, 4, dtype=torch.float64, requires_grad=True)
    ours = F.uniformity_loss(w, t=3.0, subset=rows, form=form)
    true = reference.uniformity_loss(w, 3.0, rows, form)
    torch.testing.assert_close(ours, true)
    torch.testing.assert_close(*(torch.autograd.grad(loss, w)[0] for loss in (ours, true)))
    assert gradcheck(lambda w: F.uniformity_loss(w, t=3.0, subset=rows, form=form), w)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 20), st.integers(2, 9), st.integers(0, 2**31))
def test_uniformity_loss_does_not_see_rotations(c: int, d: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(c, d, generator=generator, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0]
    torch.testing.assert_close(F.uniformity_loss(w @ turn), F.uniformity_loss(w))


@pytest.mark.parametrize("t", [30.0, 60.0, 128.0])
def test_uniformity_loss_of_sharp_potentials(t: float) -> None:
    w = torch.eye(4, requires_grad=True)
    loss = F.uniformity_loss(w, t=t)
    loss.backward()
    assert loss.item() == pytest.approx(-2 * t)  # all pairs at distance² 2
    assert w.grad is not None and torch.isfinite(w.grad).all()
    with pytest.raises(ValueError, match="lower t"):
        F.uniformity_loss(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), t=300.0)


def test_coincident_prototypes_have_a_finite_gradient() -> None:
    w = torch.ones(4, 3, requires_grad=True)
    loss = F.uniformity_loss(w, t=50.0)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-4)
    assert w.grad is not None and torch.isfinite(w.grad).all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("subset", [None, [2, 0, 7]])
def test_compiled_uniformity_loss_equals_eager(subset: list[int] | None) -> None:
    rows = None if subset is None else torch.tensor(subset)

    def loss(w: Tensor, rows: Tensor | None) -> Tensor:
        return 3 * F.uniformity_loss(2 * w, t=3.0, subset=rows, form="eq5")

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    results = []
    start = unit_rows(9, 4).mul_(torch.arange(1, 10)[:, None])
    for function in (loss, compiled):
        w = start.clone().requires_grad_()
        value = function(w, rows)
        results.append((value.detach(), *torch.autograd.grad(value, w)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    with torch.compiler.set_stance("fail_on_recompile"):
        compiled(w, rows)
        with pytest.raises(ValueError, match="row 3 is zero"):
            compiled(w.detach().index_fill(0, torch.tensor([3]), 0.0).requires_grad_(), rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"t": 0.0}, "sharpness"),
        ({"t": float("nan")}, "sharpness"),
        ({"precision": "bf16"}, "expected 'highest', 'high' or 'medium'"),
        ({"form": "mean"}, "'pairs' or 'eq5'"),
        ({"subset": torch.tensor([1, 1])}, "distinct"),
        ({"subset": torch.tensor([6])}, "0..5"),
        ({"subset": torch.tensor([], dtype=torch.int64)}, "at least one"),
        ({"prototypes": torch.randn(1, 3)}, "at least 2 rows"),
        ({"prototypes": torch.randn(3, 1)}, "D >= 2"),
        ({"prototypes": torch.tensor([[0.0, 0], [1, 0]])}, "row 0 is zero"),
        ({"prototypes": torch.tensor([[float("inf"), 0], [1, 0]])}, "NaN or inf"),
    ],
)
def test_uniformity_loss_errors(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        F.uniformity_loss(**({"prototypes": unit_rows(6, 3)} | arguments))


def test_norms_that_no_float32_holds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"has a norm that torch\.float32 does not hold"):
        F.uniformity_loss(torch.randn(5, 4) * 1e25)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("subset", [None, [4, 0, 11]])
@pytest.mark.parametrize("quick", [False, True])
def test_precisions_keep_their_promise(
    precision: Precision, subset: list[int] | None, quick: bool, quick_bfloat16: Callable[[bool], None]
) -> None:
    quick_bfloat16(quick)
    rows = None if subset is None else torch.tensor(subset)
    w = (3 * unit_rows(300, 100)).requires_grad_()
    exact = w.detach().double().requires_grad_()
    ours, true = F.uniformity_loss(w, subset=rows, precision=precision), reference.uniformity_loss(exact, subset=rows)
    allowed = {"highest": 1e-5, "high": 1e-3, "medium": 1e-2}[precision]
    assert abs(ours.item() - true.item()) <= allowed
    ours.backward()
    true.backward()
    assert w.grad is not None and exact.grad is not None
    error = (w.grad.double() - exact.grad).norm() / exact.grad.norm()
    assert error <= allowed
    assert (error > 1e-5) == (quick and precision != "highest"), "rounded where, and only where, that is quicker"
