"""The exponent for a set of prototypes: by the cosine to the nearest neighbour, whatever else they are."""

from __future__ import annotations

import math

import pytest
import torch

from fastproto.functional import power_for

from ..helpers import unit_rows


def circle(angle: float) -> torch.Tensor:
    """Two rows at this angle, and their opposites: each row's nearest neighbour is at min(angle, 180 - angle)."""
    rows = torch.tensor([[1.0, 0.0], [math.cos(angle), math.sin(angle)]])
    return torch.cat([rows, -rows])


@pytest.mark.parametrize(
    ("cosine", "power"), [(0.0, 2.0), (0.09, 2.0), (0.11, 1.5), (0.29, 1.5), (0.31, 0.5), (0.99, 0.5)]
)
def test_limits(cosine: float, power: float) -> None:
    for dtype in (torch.float32, torch.float64):
        assert power_for(circle(math.acos(cosine)).to(dtype)) == power


def test_few_and_many_rows() -> None:
    assert power_for(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])) == 2.0
    assert power_for(unit_rows(5000, 4)) == 0.5
    assert power_for(unit_rows(1000, 2000)) == 2.0  # random rows are nearly orthogonal


def test_the_rows_are_left_as_they_are() -> None:
    rows = unit_rows(20, 3)
    before = rows.clone()
    power_for(rows)
    assert torch.equal(rows, before)


def test_bad_prototypes() -> None:
    with pytest.raises(ValueError, match=r"prototypes has shape \[3\]; expected"):
        power_for(torch.ones(3))
    with pytest.raises(ValueError, match="require grad"):
        power_for(unit_rows(4, 3).requires_grad_())
    with pytest.raises(ValueError, match="meta device"):
        power_for(torch.empty(4, 3, device="meta"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_default_dtype(dtype: torch.dtype) -> None:
    rows = unit_rows(1000, 4).float()
    expected, before = power_for(rows), torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        assert power_for(rows) == expected
    finally:
        torch.set_default_dtype(before)
