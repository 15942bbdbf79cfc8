"""The best of listed columns against float64 in PyTorch, on a GPU or under Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ..kernel_device import DEVICE, poison  # first: it skips the file where the kernels cannot run

# isort: split
from fastproto_kernels.best_listed import best_listed


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(DEVICE, dtype)


@pytest.mark.parametrize("dim", [2, 17, 513])
@pytest.mark.parametrize("places", [1, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_best_listed(dim: int, places: int, dtype: torch.dtype) -> None:
    left, right = numbers(13, dim, dtype=dtype), numbers(21, dim, seed=1, dtype=dtype)
    norms, prices = left.double().norm(dim=1), numbers(21, seed=2, dtype=torch.float64)
    indices = torch.randint(-1, 21, (13, places), generator=torch.Generator().manual_seed(3)).to(DEVICE)
    indices[4] = -1
    every = left.double() @ right.double().T / norms[:, None] - prices
    expected = every.gather(1, indices.clamp_min(0)).masked_fill(indices < 0, -torch.inf).amax(1)
    strided = prices.repeat_interleave(2)[::2]
    found = best_listed(left, right, norms, strided, indices.T.contiguous().T)
    assert found.dtype == torch.float64 and float(found[4]) == -torch.inf
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


def test_the_best_of_no_rows() -> None:
    right, prices = numbers(4, 3), numbers(4, dtype=torch.float64)
    nothing = torch.empty(0, 2, dtype=torch.int64, device=DEVICE)
    assert best_listed(right[:0], right, prices[:0], prices, nothing).shape == (0,)
