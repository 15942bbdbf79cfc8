"""Class means against the loop of the reference, and the memory they are written to."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from fastproto import (
    PrototypeHead,
    reference,
    update_class_means_,
)
from fastproto import functional as F
from fastproto.backend import use_backend

from ..helpers import assert_as_accurate_as, unit_rows


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(2, 12),
    st.integers(2, 9),
    st.sampled_from([0.0, 0.5, 0.9, 0.99]),
    st.integers(0, 999),
)
def test_class_means_equal_the_loop(b: int, c: int, d: int, momentum: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    means, features = torch.randn(c, d, generator=generator), torch.randn(b, d, generator=generator)
    labels = torch.randint(0, c, (b,), generator=generator)
    labels[: b // 2] = 0  # a long tail: one class in half the batch
    ours = F.update_class_means(means, features, labels, momentum)
    loop = reference.update_class_means(means, features, labels, momentum)
    truth = reference.update_class_means(means.double(), features.double(), labels, momentum)
    assert_as_accurate_as(ours, loop, truth, crumb=1e-7)


def test_class_means_in_place_touch_only_the_classes_present() -> None:
    means = torch.randn(100, 8)
    before = means.clone()
    F.update_class_means_(means, torch.randn(5, 8), torch.tensor([3, 3, 90, 3, 7]), 0.9)
    touched = [3, 7, 90]
    kept = [i for i in range(100) if i not in touched]
    assert torch.equal(means[kept], before[kept])
    assert (means[touched] != before[touched]).any(1).all()


def test_class_means_errors_leave_the_means_alone() -> None:
    means = torch.randn(6, 3)
    before = means.clone()
    features, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 3])
    for bad, error in (
        ({"labels": torch.tensor([0, 1, 2, 9])}, ValueError),
        ({"features": torch.full((4, 3), float("nan"))}, ValueError),
        ({"momentum": 1.0}, ValueError),
        ({"momentum": -0.1}, ValueError),
        ({"features": torch.randn(4, 2)}, ValueError),
        ({"means": means.half()}, TypeError),
    ):
        arguments: dict[str, Any] = {"means": means, "features": features, "labels": labels, "momentum": 0.9}
        with pytest.raises(error):
            F.update_class_means_(**(arguments | bad))
    assert torch.equal(means, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_without_a_finite_row_changes_nothing(dtype: torch.dtype) -> None:
    means = torch.ones(5, 4, dtype=dtype)
    moved = F.update_class_means(means, torch.full((2, 4), float("nan")), torch.tensor([0, 1]), 0.9, nan_policy="skip")
    assert torch.equal(moved, means)


@pytest.mark.parametrize("backend", ["numba", "torch", "triton"])
def test_means_that_share_memory(backend: str) -> None:
    y = torch.tensor([3, 0, 0, 5, 1, 2])
    with use_backend(backend):
        for part in (slice(None), slice(1, 4)):
            means = torch.randn(6, 4)
            labels = y[part]
            expected = reference.update_class_means(means, means[part].clone(), labels, 0.9)
            update_class_means_(means, means[part], labels, 0.9)
            torch.testing.assert_close(means, expected)
        turned = torch.randn(4, 4)
        expected = reference.update_class_means(turned, turned.T.clone(), y[:4] % 4, 0.9)
        update_class_means_(turned, turned.T, y[:4] % 4, 0.9)
        torch.testing.assert_close(turned, expected)
        within = torch.zeros(6, 4)
        labels = within.view(-1).view(torch.int64)[:3]
        labels.copy_(torch.tensor([0, 1, 0]))
        x = torch.randn(3, 4)
        expected = reference.update_class_means(within, x, labels.clone(), 0.9)
        update_class_means_(within, x, labels, 0.9)
        torch.testing.assert_close(within, expected)
        made = PrototypeHead(6, 4, prototypes=unit_rows(6, 4))
        made.class_means.normal_()
        expected = reference.update_class_means(made.class_means, made.class_means.clone(), y, 0.9)
        made(made.class_means, y)
        torch.testing.assert_close(made.class_means, expected)


@pytest.mark.parametrize(
    ("means", "message"),
    [
        (lambda: torch.zeros(1, 4).expand(6, 4), "overlap in memory"),
        (lambda: torch.zeros(6, 1).expand(6, 4), "overlap in memory"),
        (lambda: torch.zeros(1, 1).expand(1, 4), "overlap in memory"),
        (lambda: torch.zeros(40).as_strided((6, 4), (2, 1)), "overlap in memory"),
        (lambda: torch.zeros(6, 4, requires_grad=True), "require grad"),
        (lambda: made_in_inference(), "inference mode"),
    ],
)
def test_means_that_cannot_be_written_to(means: Callable[[], Tensor], message: str) -> None:
    for backend in ("auto", "torch"):
        with use_backend(backend), pytest.raises(ValueError, match=message):
            update_class_means_(means(), torch.randn(2, 4), torch.tensor([0, 0]), 0.9)


def made_in_inference() -> Tensor:
    with torch.inference_mode():
        return torch.zeros(6, 4)


def test_means_in_inference_mode_and_with_strides() -> None:
    x, y = torch.randn(3, 4), torch.tensor([0, 1, 0])
    expected = reference.update_class_means(torch.zeros(6, 4), x, y, 0.9)
    with torch.inference_mode():
        means = torch.zeros(6, 4)
        update_class_means_(means, x, y, 0.9)
    torch.testing.assert_close(means.clone(), expected)
    strided = torch.zeros(4, 6).T
    update_class_means_(strided, x, y, 0.9)
    torch.testing.assert_close(strided, expected)


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_means_saved_for_backward_are_missed(backend: str) -> None:
    means, x = torch.randn(6, 4), torch.randn(3, 4, requires_grad=True)
    with use_backend(backend):
        similarity = (x @ means.T).sum()
        update_class_means_(means, x, torch.tensor([0, 1, 1]), 0.9)
        with pytest.raises(RuntimeError, match="inplace"):
            similarity.backward()


DIM, CLASSES = 5, 12


MOMENTA = (0.0, 0.5, 0.9, 0.99)


def multiset(seed: int, longest: int) -> tuple[Tensor, Tensor, Tensor, float]:
    """Means, features, labels and momentum; from evenly spread labels to nearly all of one class."""
    generator = torch.Generator().manual_seed(seed)
    size = int(torch.randint(1, longest + 1, (), generator=generator))
    tail = (1, 3, 12)[seed % 3]
    labels = (CLASSES * torch.rand(size, generator=generator) ** tail).long()
    means, x = (torch.randn(n, DIM, generator=generator) for n in (CLASSES, size))
    return means, x, labels, MOMENTA[seed % 4]


@cache
def references(seed: int, longest: int) -> tuple[Tensor, Tensor]:
    """The loop over the samples in float32 and in float64; the same for every backend."""
    means, x, labels, momentum = multiset(seed, longest)
    return tuple(
        reference.update_class_means(means.to(dtype), x.to(dtype), labels, momentum)
        for dtype in (torch.float32, torch.float64)
    )


def check(count: int, repeated: int, longest: int, device: torch.device) -> None:
    """``count`` multisets, five runs of the first ``repeated``."""
    worst = {"ours": 0.0, "loop": 0.0}
    for seed in range(count):
        means, x, labels, momentum = multiset(seed, longest)
        given = means.to(device), x.to(device), labels.to(device), momentum
        ours = F.update_class_means(*given)
        loop, truth = references(seed, longest)
        errors = {"ours": (ours.cpu() - truth).abs().max(), "loop": (loop - truth).abs().max()}
        # the crumb: half a unit in the last place of numbers between 2 and 4, the largest here
        assert errors["ours"] <= 2 * errors["loop"] + 2**-23, f"multiset {seed}: {errors}"
        worst = {name: max(worst[name], float(error)) for name, error in errors.items()}
        if seed < repeated:
            assert all(torch.equal(ours, F.update_class_means(*given)) for _ in range(4)), f"multiset {seed}"
    assert 0 < worst["ours"] <= 2 * worst["loop"], worst


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_a_thousand_multisets(backend: str) -> None:
    with use_backend(backend):
        check(1000, 1000, 40, torch.device("cpu"))


def test_multisets_on_the_kernels() -> None:
    """The interpreter takes a thousand times as long as a GPU and sees fewer of them."""
    from ..kernel_device import DEVICE  # it skips where the kernels cannot run

    with use_backend("triton"):
        if DEVICE.type == "cuda":
            check(1000, 1000, 40, DEVICE)
        else:
            check(40, 4, 40, DEVICE)
