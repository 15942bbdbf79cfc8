"""The direction of a descent: L-BFGS of the textbooks, from a preconditioner that is positive definite."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fastproto.ops.sphere_step import tangent
from fastproto.prototypes.lbfgs import History, Preconditioner
from fastproto.prototypes.starts import random_start

from ..helpers import unit_rows


@pytest.mark.parametrize(("classes", "dim"), [(40, 30), (200, 50), (50, 3)])
def test_preconditioner_is_positive_definite(classes: int, dim: int) -> None:
    w = random_start(classes, dim, 0)
    precondition = Preconditioner(w, 2.0)
    generator = torch.Generator().manual_seed(1)
    u, v = (tangent(w, torch.randn(classes, dim, generator=generator, dtype=torch.float64)) for _ in range(2))
    pu, pv = precondition.whole(u), precondition.whole(v)
    assert float((pu * v).sum()) == pytest.approx(float((u * pv).sum()), rel=1e-9, abs=1e-9)
    for field in (u, v, tangent(w, w @ w.T @ u), tangent(w, u.mean(0).expand_as(w))):
        assert float((field * precondition.whole(field)).sum()) > 0


def two_loops(pairs: list[tuple[Tensor, Tensor]], gradient: Tensor, whole: Callable[[Tensor], Tensor]) -> Tensor:
    """L-BFGS as it is in the textbooks; ``whole`` is the inverse Hessian it begins with, up to a factor."""
    q, alphas = gradient.clone(), []
    for s, y in reversed(pairs):
        alphas.append((s * q).sum() / (s * y).sum())
        q -= alphas[-1] * y
    s, y = pairs[-1]
    r = whole(q) * ((s * y).sum() / (y * whole(y)).sum())
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        r += s * (alpha - (y * r).sum() / (s * y).sum())
    return r


def test_history_is_limited_memory_bfgs() -> None:
    points = unit_rows(9, 4).double()
    precondition, history = Preconditioner(points, 2.0), History(points, memory=3)
    pairs: list[tuple[Tensor, Tensor]] = []
    generator = torch.Generator().manual_seed(0)
    for k in range(8):  # wraps round the ring, meets a pair without curvature, is cleared
        step = torch.randn(9, 4, generator=generator, dtype=torch.float64)
        change = step + 0.3 * torch.randn(9, 4, generator=generator, dtype=torch.float64)
        if k == 5:
            change = -change
        else:
            pairs = [*pairs, (step, change)][-3:]
        if k == 6:
            history.clear()
            pairs = pairs[-1:]
        history.add(step, change)
        gradient = torch.randn(9, 4, generator=generator, dtype=torch.float64)
        expected = two_loops(pairs, gradient, precondition.whole)
        torch.testing.assert_close(history.solve(gradient, precondition), expected, rtol=1e-9, atol=1e-12)
