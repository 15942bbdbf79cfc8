"""Loss, class means and nearest prototypes on the triton backend: on a GPU, or under the interpreter."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from fastproto import functional as F
from fastproto import reference
from fastproto.ops import head_step as step
from fastproto.ops import ipm_loss as ipm
from fastproto.ops import nearest_prototypes as nearest
from fastproto.ops import update_class_means as means
from fastproto.support.error_flags import RowError

from ..helpers import SHAPES, assert_as_accurate_as
from ..kernel_device import DEVICE, batch, needs_cuda, on_kernels  # it skips the file where the kernels cannot run


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the kernels that the test launches; everything in it asks for Triton."""
    with on_kernels(monkeypatch, ipm, means, nearest, step) as launched:
        yield launched


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, pytest.param(torch.bfloat16, marks=needs_cuda)])
@pytest.mark.parametrize(("loss", "reduction"), [("eq6", "mean"), ("official", "sum"), ("eq6", "none")])
def test_ipm_loss(shape: tuple[int, int, int], dtype: torch.dtype, loss: str, reduction: str, calls: list[str]) -> None:
    x, labels, w, assignment = batch(*shape, dtype)
    weight, cotangent = torch.rand(len(x), device=DEVICE), torch.randn(len(x), device=DEVICE)
    x.requires_grad_()
    ours = F.ipm_loss(x, labels, w, assignment, weight=weight, reduction=reduction, loss=loss)
    found = torch.autograd.grad(ours, x, cotangent if reduction == "none" else 3 * torch.ones_like(ours))[0]
    assert calls == ["ipm_loss"] and ours.dtype == torch.float32 and found.dtype == dtype

    def plain(wide: torch.dtype) -> tuple[Tensor, Tensor]:
        leaf = x.detach().to(wide).requires_grad_()
        value = reference.ipm_loss(leaf, labels, w.to(wide), assignment, weight.to(wide), loss)
        upstream = cotangent.to(wide) if reduction == "none" else torch.full_like(value, 3.0)
        value = value.sum() / (len(x) if reduction == "mean" else 1) if reduction != "none" else value
        factor = 1 / len(x) if reduction == "mean" else 1.0
        per_sample = reference.ipm_loss(leaf, labels, w.to(wide), assignment, weight.to(wide), loss)
        return value.detach(), torch.autograd.grad(per_sample, leaf, factor * upstream)[0]

    torchs, truth = plain(torch.float32), plain(torch.float64)
    assert_as_accurate_as(ours.detach().reshape(-1), torchs[0].reshape(-1), truth[0].reshape(-1))
    crumb = 1e-6 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps
    assert_as_accurate_as(found, torchs[1].to(dtype), truth[1], crumb=crumb)


def test_the_weight_has_a_gradient_too() -> None:
    x, labels, w, assignment = batch(6, 5, 4)
    weight = torch.rand(6, device=DEVICE, requires_grad=True)
    F.ipm_loss(x, labels, w, assignment, weight=weight, reduction="sum").backward()
    torch.testing.assert_close(weight.grad, F.ipm_loss(x, labels, w, assignment, reduction="none"))


@pytest.mark.parametrize("b", [0, 1, 7, 50])
def test_class_means(b: int, calls: list[str]) -> None:
    x, labels, _, _ = batch(b, 6, 5)
    q = torch.randn(6, 5, device=DEVICE)
    ours = F.update_class_means(q, x, labels, 0.8)
    assert calls == ["update_class_means_"] * (b > 0)
    truth = reference.update_class_means(q.double(), x.double(), labels, 0.8)
    assert_as_accurate_as(ours, reference.update_class_means(q, x, labels, 0.8), truth, crumb=2e-7)


def test_means_with_strides_take_the_torch_path(calls: list[str]) -> None:
    x, labels, _, _ = batch(9, 6, 5)
    q = torch.randn(5, 6, device=DEVICE)
    expected = reference.update_class_means(q.T.double(), x.double(), labels, 0.8)
    F.update_class_means_(q.T, x, labels, 0.8)
    assert calls == []
    torch.testing.assert_close(q.T.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("k", [1, 5, 33])
def test_nearest_prototypes(k: int, calls: list[str]) -> None:
    x, _, w, _ = batch(21, 40, 6)
    cosines, indices = F.nearest_prototypes(x, w, k)
    assert calls == (["top_scores"] if k <= 32 else []), "beyond 32 torch sorts"
    exact = reference.normalise(x.double()) @ w.double().T
    values, order = exact.sort(dim=1, descending=True, stable=True)
    assert torch.equal(indices, order[:, :k])
    torch.testing.assert_close(cosines.double(), values[:, :k], rtol=0, atol=2e-6)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # NumPy, of inf times zero
def test_bad_rows_are_left_out_and_raised_by_the_check() -> None:
    x, labels, w, assignment = batch(6, 5, 4)
    q = torch.randn(5, 4, device=DEVICE)
    clean = F.ipm_loss(x, labels, w, assignment, reduction="none")
    bad_labels, bad_x, bad_assignment = labels.clone(), x.clone(), assignment.clone()
    bad_labels[1], bad_x[2, 0], bad_assignment[labels[3]] = 5, torch.nan, -1
    others = torch.tensor([0, 3, 4, 5], device=DEVICE)
    loss = F.ipm_loss(bad_x, bad_labels, w, assignment, reduction="none")
    assert torch.equal(loss[others], clean[others]) and loss[[1, 2]].tolist() == [0, 0]
    with pytest.raises(ValueError, match=r"left out on the device: labels outside 0\.\.C-1 .*; features with NaN"):
        F.check_batches()
    F.check_batches()  # it is said once
    F.ipm_loss(x, labels, w, bad_assignment)
    with pytest.raises(ValueError, match=r"device: an assignment that names rows outside"):
        F.check_batches()
    moved = F.update_class_means(q, bad_x, bad_labels, 0.9)
    torch.testing.assert_close(moved, F.update_class_means(q, x[others], labels[others], 0.9))
    with pytest.raises(ValueError, match="labels outside"):
        F.check_batches()
    assert F.nearest_prototypes(bad_x, w)[0].isnan()[:, 0].tolist() == [False, False, True, False, False, False]
    with pytest.raises(ValueError, match="features with NaN"):
        F.check_batches()


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_skipped_rows_raise_nothing_but_bad_labels_do() -> None:
    x, labels, w, assignment = batch(6, 5, 4)
    x[2, 0] = torch.nan
    assert F.ipm_loss(x, labels, w, assignment, reduction="none", nan_policy="skip")[2] == 0
    F.update_class_means(torch.zeros(5, 4, device=DEVICE), x, labels, 0.9, nan_policy="skip")
    F.check_batches()
    labels[0] = -1
    F.ipm_loss(x, labels, w, assignment, nan_policy="skip")
    with pytest.raises(ValueError, match=r"left out on the device: labels outside 0\.\.C-1 \([^;]*\); expected"):
        F.check_batches()


def test_registered_operators_on_the_kernels() -> None:
    x, labels, w, assignment = batch(6, 9, 4)
    flag, skipped = torch.zeros(1, dtype=torch.int32, device=DEVICE), torch.tensor(0, device=DEVICE)
    arguments = (x, labels, w, assignment, None, 0.5, True, flag, skipped)
    q = torch.zeros(9, 4, device=DEVICE)
    torch.library.opcheck(torch.ops.fastproto.head_step_.default, (*arguments, q, 0.9))
    torch.library.opcheck(torch.ops.fastproto.ipm_loss.default, arguments)
    torch.library.opcheck(torch.ops.fastproto.update_class_means_.default, (q, x, labels, 0.9, False, flag))


def test_kernels_and_package_mean_the_same_by_an_error_bit() -> None:
    from fastproto_kernels.lib import error_flags

    for error in (RowError.BAD_LABEL, RowError.NOT_FINITE, RowError.BAD_ASSIGNMENT):
        assert error == getattr(error_flags, error.name)
