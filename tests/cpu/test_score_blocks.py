"""The compiled scans against PyTorch: block of float32 or of the bits of bfloat16."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fastproto.assignment.scores_cpu import as_array
from fastproto.cpu import score_blocks as scan

TYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@TYPES
@pytest.mark.parametrize("columns", [3, 64, 65, 700])
@pytest.mark.parametrize("k", [1, 4, 24])
@pytest.mark.parametrize("floor, within", [(-np.inf, np.inf), (1.0, np.inf), (-np.inf, 0.7), (50.0, 1.0)])
def test_top_of_rows(dtype: torch.dtype, columns: int, k: int, floor: float, within: float) -> None:
    block, prices = numbers(20, columns).to(dtype), numbers(columns, seed=1)
    k = min(k, columns)
    values, indices = np.empty((20, k), np.float32), np.empty((20, k), np.int32)
    limits = (np.full(20, limit, np.float32) for limit in (floor, within))
    scan.top_of_rows(as_array(block), prices.numpy(), *limits, 0, values, indices)
    left = block.float() - prices
    best = left.sort(descending=True).values
    listed = (best >= floor) & (best >= best[:, :1] - np.float32(within))
    expected = best.masked_fill(~listed, -torch.inf)[:, :k]
    assert torch.equal(torch.from_numpy(values), expected)
    full = indices >= 0
    assert np.array_equal(full, np.isfinite(values))
    rows = np.nonzero(full)[0]
    assert np.array_equal(left.numpy()[rows, indices[full]], values[full])


@TYPES
@pytest.mark.parametrize("dim", [2, 31, 128])
def test_centre_rows(dtype: torch.dtype, dim: int) -> None:
    x, norms, direction = numbers(50, dim) + 3, numbers(50, seed=1).abs().double() + 0.5, numbers(dim, seed=2).double()
    mean = np.empty(dim)
    scan.mean_direction(x.numpy(), norms.numpy(), mean)
    true = x.double() / norms[:, None]
    assert torch.allclose(torch.from_numpy(mean), true.mean(0), rtol=1e-13)
    rounded = torch.empty(50, dim, dtype=dtype)
    norm, loss, along = (torch.empty(50, dtype=torch.float64) for _ in range(3))
    facts = (fact.numpy() for fact in (norm, loss, along))
    scan.centre_rows(x.numpy(), norms.numpy(), mean, direction.numpy(), as_array(rounded), *facts)
    centred = true - torch.from_numpy(mean)
    # float64 sums in another order can tip a tie: by one unit in the last place
    assert (rounded.double() - centred).abs().max() <= 0.51 * torch.finfo(dtype).eps * centred.abs().max()
    assert torch.allclose(norm, centred.norm(dim=1), rtol=1e-12)
    assert torch.allclose(loss, (centred - rounded.double()).norm(dim=1), rtol=1e-6)
    assert bool((loss > 0).all())
    assert torch.allclose(along, true @ direction, rtol=1e-12)


@TYPES
def test_rows_are_rounded_as_in_torch(dtype: torch.dtype) -> None:
    x = torch.cat((numbers(40, 8), torch.tensor([[1.00390625, 1.01171875, -1.00390625, 0.0, -0.0, 1e-40, 3e38, 1.0]])))
    rounded, spare = torch.empty(x.shape, dtype=dtype), np.empty((3, len(x)))
    scan.centre_rows(x.numpy(), np.ones(len(x)), np.zeros(8), np.zeros(8), as_array(rounded), *spare)
    assert torch.equal(rounded, x.to(dtype))


@TYPES
def test_sum_of_squares(dtype: torch.dtype) -> None:
    block = numbers(70, 333).to(dtype)
    assert scan.sum_of_squares(as_array(block)) == pytest.approx(float(block.double().square().sum()), rel=1e-6)
