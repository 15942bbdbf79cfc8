"""Cross-entropy over the prototypes in blocks, against the float64 reference."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from fastproto import PrototypeHead, reference
from fastproto.ops.ipm_loss import LossOptions
from fastproto.ops.softmax_loss import COLUMNS, LARGEST_SCALE, ROWS, loss_and_gradient, rows_of, softmax_per_sample
from fastproto.support.error_flags import BAD_ASSIGNMENT, BAD_LABEL, NOT_FINITE

from ..helpers import SHAPES, assert_as_accurate_as, unit_rows
from ..helpers import ipm_batch as batch

SCALES = pytest.mark.parametrize("scale", [16.0, "norm"])


@SCALES
@pytest.mark.parametrize("shape", [*SHAPES, (ROWS + 6, COLUMNS + 5, 3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_softmax_loss(shape: tuple[int, int, int], dtype: torch.dtype, scale: Any) -> None:
    x, labels, w, assignment = batch(*shape)
    x, weight, cotangent = x.to(dtype), torch.rand(len(x)), torch.randn(len(x))

    def plain(wide: torch.dtype) -> tuple[Tensor, Tensor]:
        leaf = x.to(wide).requires_grad_()
        loss = reference.softmax_loss(leaf, labels, w.to(wide), assignment, scale) * weight.to(wide)
        return loss.detach(), torch.autograd.grad(loss, leaf, cotangent.to(wide))[0]

    leaf = x.clone().requires_grad_()
    ours = softmax_per_sample(leaf, labels, w, assignment, LossOptions(weight), scale)
    (gradient,) = torch.autograd.grad(ours, leaf, cotangent)
    assert ours.dtype == torch.float32 and gradient.dtype == dtype
    torchs, truth = plain(torch.float32), plain(torch.float64)
    assert_as_accurate_as(ours.detach(), torchs[0], truth[0])
    assert_as_accurate_as(gradient, torchs[1].to(dtype), truth[1], crumb=2 * torch.finfo(dtype).eps + 1e-6)


@SCALES
def test_gradcheck(scale: Any) -> None:
    features, labels, w, assignment = batch(6, 9, 4)
    x = features.double().requires_grad_()
    options = LossOptions(torch.rand(6, dtype=torch.float64), 0.3)
    assert gradcheck(lambda x: softmax_per_sample(x, labels, w.double(), assignment, options, scale), x)


def test_extreme_logits_and_rows_without_direction() -> None:
    w, y = unit_rows(5, 3), torch.arange(5)
    x = (1e6 * w).requires_grad_()
    loss = softmax_per_sample(x, y, w, y, LossOptions(), "norm")
    assert not bool(loss.any()), "sure and right"
    far = softmax_per_sample(-x, y, w, y, LossOptions(), "norm")
    torch.testing.assert_close(far, reference.softmax_loss(-x.double(), y, w.double(), y, "norm").float())
    zero = torch.zeros(5, 3, requires_grad=True)
    loss = softmax_per_sample(zero, y, w, y, LossOptions(), 16.0)
    loss.sum().backward()
    torch.testing.assert_close(loss.detach(), torch.full((5,), math.log(5)))
    assert zero.grad is not None and not bool(zero.grad.any())


def test_scales() -> None:
    w, y = unit_rows(5, 3), torch.arange(5)
    x = (2e-12 * unit_rows(5, 3)).requires_grad_()
    loss = PrototypeHead(5, 3, prototypes=w, loss="softmax", scale=LARGEST_SCALE)(x, y)
    loss.backward()
    assert x.grad is not None and bool(x.grad.isfinite().all()) and math.isfinite(float(loss.detach()))
    with pytest.raises(ValueError, match=r"scale is 1e\+39; expected at most 1e\+20, such as 16"):
        PrototypeHead(5, 3, prototypes=w, loss="softmax", scale=1e39)
    with pytest.raises(TypeError, match="expected a number"):
        PrototypeHead(5, 3, prototypes=w, loss="softmax", scale=np.ones(3))  # type: ignore[arg-type]


class Largest(TorchDispatchMode):
    """The most elements of any tensor that an operation makes."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for x in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(x, Tensor):
                self.elements = max(self.elements, x.numel())
        return made


@SCALES
def test_no_tensor_has_the_size_of_the_logits_or_of_all_prototypes(scale: Any) -> None:
    x, labels, w, assignment = batch(4, 3 * COLUMNS, 9)
    with Largest() as seen:  # type: ignore[no-untyped-call]  # torch's own class has no types
        loss_and_gradient(
            x, labels, w, assignment, None, 1.0, False, None, None, None if scale == "norm" else scale, True
        )
    assert seen.elements == 9 * COLUMNS < min(len(x) * len(w), w.numel())


def test_bad_rows_raise_on_the_cpu_and_are_flagged_elsewhere() -> None:
    x, labels, w, assignment = batch(5, 9, 4)
    for y, order, message in (
        (torch.tensor([0, 1, 9, 2, 3]), assignment, "labels run from 0 to 9"),
        (labels, assignment + 9, "rows of the assignment run from"),
    ):
        with pytest.raises(ValueError, match=message):
            softmax_per_sample(x, y, w, order, LossOptions(), 16.0)
    flag = torch.zeros(1, dtype=torch.int32)
    finite = torch.tensor([True, True, True, True, False])
    bad = torch.where(assignment == assignment[3], 12, assignment)
    rows, good = rows_of(torch.tensor([-1, 9, 0, 3, 1]), bad, finite, False, flag)
    assert good.tolist() == [False, False, True, False, False] and bool((rows >= 0).all() & (rows < 9).all())
    assert int(flag) == BAD_LABEL | BAD_ASSIGNMENT | NOT_FINITE


@SCALES
def test_skipped_rows(scale: Any) -> None:
    x, labels, w, _ = batch(6, 9, 4)
    x[1, 2], x[4, 0] = math.nan, math.inf
    good = torch.tensor([0, 2, 3, 5])
    head = PrototypeHead(9, 4, prototypes=w, loss="softmax", scale=scale, reduction="none", nan_policy="skip")
    leaf = x.clone().requires_grad_()
    loss = head(leaf, labels)
    loss.sum().backward()
    assert int(head.skipped) == 2 and loss[[1, 4]].tolist() == [0, 0] and leaf.grad is not None
    assert not bool(leaf.grad[[1, 4]].any()) and bool(leaf.grad.isfinite().all())
    torch.testing.assert_close(loss[good], head(x[good], labels[good], update_means=False))
    torch.testing.assert_close(
        head.class_means, reference.update_class_means(torch.zeros(9, 4), x[good], labels[good], 0.9)
    )
    head.check_batches()
