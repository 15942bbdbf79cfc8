"""The paper's own descent."""

from __future__ import annotations

import math

import pytest
import torch

from fastproto import reference
from fastproto.prototypes import estimate_prototypes, measure_prototypes
from fastproto.prototypes.starts import random_start


@pytest.mark.parametrize(("form", "cost"), [("eq5", 1 / 4), ("within_batch", 1 / 16)])
def test_sgd_lowers_the_potential_and_counts_its_passes(form: str, cost: float) -> None:
    found = estimate_prototypes(80, 6, method="sgd", form=form, subset_size=20, iterations=200, lr=1.0)
    assert found.method == "sgd" and found.passes == math.ceil(200 * cost)
    assert found.quality.uniformity < measure_prototypes(random_start(80, 6, 0)).uniformity - 0.02


def test_one_sgd_step_is_the_gradient_of_eq5() -> None:
    w = random_start(30, 4, 0)
    free = w.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(reference.uniformity_loss(free, form="eq5"), free)
    expected = torch.nn.functional.normalize(w - 0.1 * gradient, dim=1)
    found = estimate_prototypes(30, 4, method="sgd", iterations=1)
    torch.testing.assert_close(found.vectors, expected.float(), rtol=0, atol=1e-6)


def test_sgd_within_batches_refuses_a_potential_that_underflows() -> None:
    with pytest.raises(ValueError, match="lower t"):
        estimate_prototypes(20, 10, method="sgd", form="within_batch", t=1e4, iterations=2, cache=False)
