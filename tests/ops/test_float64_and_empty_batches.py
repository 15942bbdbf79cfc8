"""Float64 stays float64, and an empty batch is a batch, in every dtype."""

from __future__ import annotations

import pytest
import torch

from fastproto import PrototypeHead, ipm_loss, reference

from ..helpers import unit_rows


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("count", [3, 7])  # thirds and sevenths are no float32 numbers
def test_the_loss_of_float64_features_is_that_of_float64(count: int, reduction: str) -> None:
    x, y = torch.randn(count, 5, dtype=torch.float64), torch.arange(count) % 4
    w, a = unit_rows(4, 5, torch.float64), torch.randperm(4)
    ours, true = x.clone().requires_grad_(), x.clone().requires_grad_()
    loss = ipm_loss(ours, y, w, a, reduction=reduction)
    truth = reference.ipm_loss(true, y, w, a).sum() / (count if reduction == "mean" else 1)
    loss.backward()
    truth.backward()
    torch.testing.assert_close(loss, truth, rtol=1e-14, atol=0)
    torch.testing.assert_close(ours.grad, true.grad, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("means", ["ema", "official"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_an_empty_batch_changes_nothing(dtype: torch.dtype, means: str) -> None:
    head = PrototypeHead(6, 3, prototypes=unit_rows(6, 3), means=means)
    before = head.class_means.clone()
    x = torch.zeros(0, 3, dtype=dtype, requires_grad=True)
    loss = head(x, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0 and x.grad is not None and x.grad.shape == (0, 3)
    assert torch.equal(head.class_means, before) and int(head.updates) == 0
