"""Mixup: the loss of both labels, shares in every form, and those that are refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from fastproto import PrototypeHead, ipm_loss, reference

from ..every_head import HEADS, batch, head
from ..helpers import unit_rows


@pytest.mark.parametrize("name", HEADS)
def test_shares_of_every_form(name: str) -> None:
    made = HEADS[name](10, 4, reduction="none")
    x, a, b = batch()
    one, two = made(x, a, update_means=False), made(x, b, update_means=False)
    lam = torch.tensor([0.0, 1.0, 0.5, 0.25, 0.75, 0.1, 0.9, 0.3])
    right = lam * one + (1 - lam) * two
    for given in (lam, lam[:, None], lam.double(), lam[:, None].double(), lam.clone().requires_grad_()):
        loss = made(x, a, labels2=b, lam=given, update_means=False)
        torch.testing.assert_close(loss, right)
    for number in (0.25, np.float32(0.25), torch.tensor(0.25), torch.tensor([0.25]), torch.tensor(0.25).double()):
        loss = made(x, a, labels2=b, lam=number, update_means=False)
        torch.testing.assert_close(loss, 0.25 * one + 0.75 * two)
    torch.testing.assert_close(made(x, a, labels2=b, lam=1, update_means=False), one)
    torch.testing.assert_close(made(x, a, labels2=b, lam=torch.ones(8, dtype=torch.int64), update_means=False), one)
    torch.testing.assert_close(made(x[:1], a[:1], labels2=b[:1], lam=lam[2:3, None], update_means=False), right[:1] * 0
                               + 0.5 * one[:1] + 0.5 * two[:1])  # fmt: skip


BAD_SHARES: list[Any] = [
    math.nan, 1.5, -0.1, math.inf, 1j, "0.5", [0.5] * 8, True,
    torch.rand(1, 8), torch.rand(8, 2), torch.rand(7), torch.rand(8, 1, 1), torch.rand(1, 1),
    torch.full((8,), 1.5), torch.full((8,), math.nan), torch.full((8, 1), -0.5), torch.tensor(math.nan),
    torch.ones(8, dtype=torch.bool), torch.ones(8, dtype=torch.complex64), torch.full((8,), 2),
]  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("training", [True, False])
def test_bad_shares_are_refused_by_name(name: str, training: bool) -> None:
    made = HEADS[name](10, 4).train(training)
    x, a, b = batch()
    before = {key: value.clone() for key, value in made.state_dict().items()}
    for shares in ([0.5] * 8, torch.rand(8).numpy()):
        with pytest.raises(TypeError, match=r"^lam is a (list|ndarray); .* pass torch.as_tensor\(lam\)"):
            made(x, a, labels2=b, lam=shares)
    for lam in BAD_SHARES:
        with pytest.raises((TypeError, ValueError), match=r"^lam "):
            made(x, a, labels2=b, lam=lam)
    with pytest.raises((TypeError, ValueError), match="labels2"):
        made(x, a, labels2=b + 10, lam=0.5)
    with pytest.raises((TypeError, ValueError), match="labels2"):
        made(x, a, labels2=b.float(), lam=0.5)
    assert all(torch.equal(value, before[key]) for key, value in made.state_dict().items())


def test_a_bad_share_in_a_compiled_step_is_said_later() -> None:
    made, (x, a, b) = head(), batch()
    lam = torch.tensor([0.5, math.nan, 0.5, 2.0, 0.5, 0.5, 0.5, 0.5])
    step = torch.compile(lambda lam: made(x, a, labels2=b, lam=lam), backend="aot_eager", fullgraph=True)
    good = torch.tensor([0, 2, 4, 5, 6, 7])
    expected = made(x[good], a[good], labels2=b[good], lam=0.5, update_means=False) * 6 / 8
    torch.testing.assert_close(step(lam), expected)
    with pytest.raises(ValueError, match="lam with NaN"):
        made.check_batches()
    step(lam.nan_to_num().clamp(0, 1))
    made.check_batches()


def test_the_loss_of_two_labels_and_the_label_that_the_means_count() -> None:
    head = PrototypeHead(12, 4, prototypes=unit_rows(12, 4))
    x, y1, y2 = torch.randn(6, 4), torch.randint(0, 12, (6,)), torch.randint(0, 12, (6,))
    lam = torch.tensor([0.1, 0.9, 0.5, 0.3, 1.0, 0.0])
    loss = head(x, y1, labels2=y2, lam=lam)
    one, two = (ipm_loss(x, y, head.prototypes, head.assignment, reduction="none") for y in (y1, y2))
    torch.testing.assert_close(loss, (lam * one + (1 - lam) * two).mean())
    larger = torch.where(lam >= 0.5, y1, y2)
    torch.testing.assert_close(head.class_means, reference.update_class_means(torch.zeros(12, 4), x, larger, 0.9))
    torch.testing.assert_close(head.eval()(x, y1, labels2=y2, lam=0.25), (0.25 * one + 0.75 * two).mean())
    with pytest.raises(ValueError, match="go together"):
        head(x, y1, labels2=y2)


@pytest.mark.parametrize("name", HEADS)
def test_each_label_has_a_weight_of_its_own(name: str) -> None:
    made = HEADS[name](10, 4)
    x, a, b = batch()
    first, second = torch.rand(8), torch.rand(8)
    one, two = made(x, a, first, update_means=False), made(x, b, second, update_means=False)
    loss = made(x, a, first, labels2=b, lam=0.3, weight2=second, update_means=False)
    torch.testing.assert_close(loss, 0.3 * one + 0.7 * two)
    alone = made(x, a, labels2=b, lam=0.3, weight2=second, update_means=False)
    torch.testing.assert_close(alone, 0.3 * made(x, a, update_means=False) + 0.7 * two)
    with pytest.raises(ValueError, match="weight2 is given without labels2"):
        made(x, a, first, weight2=second)
    with pytest.raises(ValueError, match="weight2 has shape"):
        made(x, a, first, labels2=b, lam=0.3, weight2=second[:3])
