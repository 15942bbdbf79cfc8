"""Features of float64, and numbers that float32 does not hold."""

from __future__ import annotations

import pytest
import torch

from fastproto import (
    reference,
)
from fastproto.baselines import (
    SoftmaxHead,
)

from ..every_head import HEADS, batch, head


@pytest.mark.parametrize("name", HEADS)
def test_float64_features_give_float64(name: str) -> None:
    made = HEADS[name](10, 4)
    x, a, b = batch()
    x, weight = x.double().requires_grad_(), torch.rand(8)
    loss = made(x, a, weight, labels2=b, lam=torch.rand(8))
    loss.backward()
    labels, cosines = made.predict_with_cosines(x.detach(), 2)
    assert loss.dtype == cosines.dtype == made.logits(x).dtype == torch.float64 and labels.dtype == torch.int64
    assert x.grad is not None and x.grad.dtype == torch.float64
    single = made(x.detach().float(), a, weight.double(), labels2=b, lam=torch.rand(8).double())
    assert single.dtype == torch.float32


def test_official_means_of_float64_features() -> None:
    made = head(means="official")
    x = torch.randn(4, 4, dtype=torch.float64) * 1e60  # more than float32 holds
    before = made.class_means.double()
    made(x, torch.tensor([1, 2, 1, 3]))
    expected = reference.update_official_means(before, x, torch.tensor([1, 2, 1, 3]))
    torch.testing.assert_close(made.class_means.double(), expected, atol=1e-7, rtol=0)


def test_features_too_large_to_be_squared() -> None:
    x, y = torch.full((3, 4), 1e30), torch.arange(3)
    for made in (head(), HEADS["fixed_softmax"](10, 4), SoftmaxHead(10, 4)):
        with pytest.raises(ValueError, match="too large to be squared"):
            made(x, y)
        with pytest.raises(ValueError, match="too large to be squared"):
            made.predict(x)
        assert made.logits(x).isnan().all()  # no label is better than another
        torch.testing.assert_close(made.logits(x.double()), made.logits(torch.ones(3, 4, dtype=torch.float64)))
