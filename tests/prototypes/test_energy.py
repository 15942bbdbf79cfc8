"""What a descent lowers: L_uni and its gradient, also where exp underflows or points coincide."""

from __future__ import annotations

import math

import pytest
import torch

from fastproto import reference
from fastproto.prototypes import measure_prototypes
from fastproto.prototypes.budget import Budget
from fastproto.prototypes.energy import energy
from fastproto.prototypes.optimise import minimise
from fastproto.prototypes.starts import random_start


@pytest.mark.parametrize("t", [2.0, 100.0, 1000.0])
def test_energy_equals_the_reference(t: float) -> None:
    w = random_start(60, 5, 0)
    free = w.clone().requires_grad_()
    z = free / free.norm(dim=1, keepdim=True)
    off = (z @ z.T)[~torch.eye(60, dtype=torch.bool)]
    value = torch.logsumexp(2 * t * (off - 1), 0) - math.log(len(off))
    (gradient,) = torch.autograd.grad(value, free)
    if t == 2.0:
        assert float(value.detach()) == pytest.approx(float(reference.uniformity_loss(w, t)), abs=1e-12)
    ours, scaled = energy(t)(w)
    assert ours == pytest.approx(float(value.detach()), abs=1e-10)
    torch.testing.assert_close(scaled / 60, gradient, rtol=1e-9, atol=1e-10)


def test_energy_at_a_sharp_potential_in_float32() -> None:
    w = random_start(3000, 4, 0)  # more than one block
    assert energy(500.0)(w.float())[0] == pytest.approx(measure_prototypes(w, 500.0).uniformity, rel=1e-4)


def test_coincident_points_do_not_blow_up() -> None:
    w = random_start(40, 4, 0)
    w[1] = w[0]
    for t in (2.0, 4096.0):
        value, gradient = energy(t)(w)
        assert math.isfinite(value) and bool(torch.isfinite(gradient).all())
    points, value = minimise(w, 2.0, Budget(), passes=50, tolerance=0.0)
    assert math.isfinite(value) and bool(torch.isfinite(points).all())
