"""torch's default dtype and device change no result; float64 stays float64."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from fastproto import (
    estimate_prototypes,
    gaussian_potential,
    ipm_loss,
    measure_prototypes,
    nearest_prototypes,
    reference,
    uniformity_loss,
    update_class_means,
)
from fastproto.backend import use_backend
from fastproto.baselines import (
    semantic_prototypes,
)
from fastproto.prototypes import binary_code

from ..helpers import unit_rows


@contextmanager
def defaults(dtype: torch.dtype | None, device: str | None) -> Iterator[None]:
    try:
        torch.set_default_dtype(dtype or torch.float32)
        # not set_default_device: torch 2.9 does not know the default any more once it is set back to None
        with torch.device(device) if device else nullcontext():
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def every_result(x: Tensor, y: Tensor, w: Tensor, m: Tensor, weight: Tensor) -> dict[str, Any]:
    """Of every function, on the tensors given alone."""
    leaf, order = x.clone().requires_grad_(), torch.arange(9, -1, -1, device="cpu")
    results: dict[str, Any] = {
        "loss": ipm_loss(leaf, y, w, order, weight=weight, nan_policy="skip"),
        "official": ipm_loss(leaf, y, w, order, loss="official"),
        "means": update_class_means(m, x, y, 0.9),
        "skipped": update_class_means(m, x, y, 0.9, nan_policy="skip"),
        "nearest": nearest_prototypes(x, w, 3),
    }
    torch.autograd.backward([results["loss"], results["official"]])
    results["gradient"] = leaf.grad
    if w.dtype == x.dtype:
        rows = w.clone().requires_grad_()
        results["potential"] = gaussian_potential(w, t=3.0)
        results["uniformity"] = uniformity_loss(rows, subset=y[:3], form="eq5")
        results["sharp"] = uniformity_loss(rows, t=30.0)
        torch.autograd.backward([results["uniformity"], results["sharp"]])
        results["uniformity gradient"] = rows.grad
        results["quality"] = torch.tensor(list(vars(measure_prototypes(w)).values()), dtype=torch.float64, device="cpu")
    return {name: value.detach() if isinstance(value, Tensor) else value for name, value in results.items()}


def assert_same(found: Any, expected: Any, name: str = "") -> None:
    if isinstance(expected, dict):
        for key, value in expected.items():
            assert_same(found[key], value, f"{name} {key}")
    elif isinstance(expected, tuple):
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other, name)
    else:
        assert found.dtype == expected.dtype and found.device == expected.device, name
        assert torch.equal(found, expected), name


@pytest.mark.parametrize("backend", ["auto", "torch"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_defaults_of_torch_change_nothing(backend: str, dtype: torch.dtype) -> None:
    wide = dtype if dtype in (torch.float32, torch.float64) else torch.float32
    given = (
        torch.randn(6, 4).to(dtype), torch.tensor([3, 0, 9, 1, 2, 4]), unit_rows(10, 4, wide),
        torch.randn(10, 4).to(wide), torch.rand(6).to(dtype),
    )  # fmt: skip
    with use_backend(backend):
        expected = every_result(*given)
        for kind, device in ((torch.float64, None), (torch.float16, None), (torch.bfloat16, None), (None, "meta")):
            with defaults(kind, device):
                found = every_result(*given)
            assert_same(found, expected)
    if dtype == torch.float64:
        flat = [x for value in expected.values() for x in (value if isinstance(value, tuple) else (value,))]
        assert all(x.dtype in (torch.float64, torch.int64) for x in flat)
        x, y, w, m, weight = given
        exact = reference.ipm_loss(x, y, w, torch.arange(9, -1, -1), weight).mean()
        assert abs(float(expected["loss"] - exact)) < 1e-15  # and not of a factor 1/6 in float32
        torch.testing.assert_close(expected["means"], reference.update_class_means(m, x, y, 0.9), atol=1e-15, rtol=0)


def test_prototypes_are_made_on_the_cpu_whatever_the_defaults_are() -> None:
    sizes = [(4, 5), (10, 2), (10, 5), (7, 4), (12, 3), (20, 4)]
    expected = [estimate_prototypes(c, d, cache=False, max_passes=20) for c, d in sizes]
    for kind, device in ((torch.float64, None), (torch.float16, None), (None, "meta")):
        with defaults(kind, device):
            found = [estimate_prototypes(c, d, cache=False, max_passes=20) for c, d in sizes]
            assert all(torch.equal(a.vectors, b.vectors) for a, b in zip(found, expected, strict=True))
            assert found[4].quality == expected[4].quality
            assert binary_code(20, 8).device.type == "cpu"


def test_semantic_prototypes_are_float32_whatever_the_default_is() -> None:
    given = unit_rows(5, 3)
    expected = semantic_prototypes(given, 3, steps=3)
    for kind in (torch.float64, torch.bfloat16):
        with defaults(kind, None):
            assert_same(semantic_prototypes(given, 3, steps=3), expected)
