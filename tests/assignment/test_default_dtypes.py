"""Neither autocast nor the default dtype reaches assignment and alignment."""

from __future__ import annotations

import pytest
import torch

from fastproto import PrototypeHead
from fastproto.assignment import assign
from fastproto.assignment.inputs import Method

from .instances import METHODS


def test_autocast_does_not_reach_assignment_or_alignment() -> None:
    generator = torch.Generator().manual_seed(0)
    w = torch.nn.functional.normalize(torch.randn(200, 8, generator=generator), dim=1)
    q = torch.nn.functional.normalize(torch.randn(200, 8, generator=generator), dim=1)
    head = PrototypeHead(200, 8, prototypes=w)
    head.class_means.copy_(q)
    plain = assign(q, w, method="column_generation")
    with torch.autocast("cpu", torch.bfloat16):
        found = assign(q, w, method="column_generation")
        head.align(starts=1)
    assert torch.equal(found.permutation, plain.permutation) and found.gap == plain.gap
    assert (head.prototypes @ head.prototypes.T - w @ w.T).abs().max() < 1e-5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_assignment_under_another_default_dtype(dtype: torch.dtype, method: Method) -> None:
    w = torch.nn.functional.normalize(torch.randn(200, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    torch.set_default_dtype(dtype)
    try:
        found = assign(w[torch.arange(199, -1, -1)], w, method=method)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.certified and torch.equal(found.permutation, torch.arange(199, -1, -1))
