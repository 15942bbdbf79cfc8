"""An empty batch is a batch: loss 0, a gradient [0, D], and nothing moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fastproto import (
    PrototypeHead,
    ipm_loss,
    update_class_means,
)
from fastproto.backend import use_backend

from ..every_head import HEADS, head
from ..helpers import unit_rows


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


@pytest.mark.parametrize("backend", ["auto", "torch", "numba", "triton"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_no_samples(backend: str, dtype: torch.dtype) -> None:
    if dtype == torch.float64 and backend in ("numba", "triton"):
        backend = "auto"
    y, w = torch.zeros(0, dtype=torch.int64), unit_rows(10, 4)
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    mixtures: list[dict[str, Any]] = [{}, {"weight": torch.zeros(0)}, {"weight": torch.zeros(0, requires_grad=True)}]
    mixtures += [{"labels2": y, "lam": lam} for lam in (0.3, torch.tensor(0.3), torch.zeros(0), torch.zeros(0, 1))]

    def check(loss: Callable[..., Tensor], reduction: str, **given: Any) -> None:
        x = torch.zeros(0, 4, dtype=dtype, requires_grad=True)
        value = loss(x, y, **given)
        value.sum().backward()
        assert value.dtype == expected and value.shape == ((0,) if reduction == "none" else ())
        assert float(value.detach().sum()) == 0
        assert x.grad is not None and x.grad.shape == (0, 4) and x.grad.dtype == dtype

    with use_backend(backend):
        for reduction in ("mean", "sum", "none"):
            for policy in ("raise", "skip"):
                options: dict[str, Any] = {"reduction": reduction, "nan_policy": policy}
                check(lambda x, y, o=options, **k: ipm_loss(x, y, w, torch.randperm(10), **o, **k), reduction)
                for means in ("ema", "official"):
                    made = PrototypeHead(10, 4, prototypes=w, means=means, **options)
                    before = made.class_means.clone()
                    for given in mixtures:
                        check(made, reduction, **given)
                    assert torch.equal(made.class_means, before) and int(made.updates) == 0
            for make in HEADS.values():
                for given in mixtures:
                    check(make(10, 4, reduction=reduction), reduction, **given)
        x = torch.zeros(0, 4, dtype=dtype)
        for make in HEADS.values():
            made = make(10, 4)
            labels, cosines = made.predict_with_cosines(x, 3)
            assert labels.shape == cosines.shape == (0, 3) and labels.dtype == torch.int64
            assert cosines.dtype == made.logits(x).dtype == expected
            assert made.logits(x).shape == (0, made.num_classes)
        stay = torch.randn(10, 4)
        assert torch.equal(update_class_means(stay, x, y, 0.9, nan_policy="skip"), stay)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_samples_in_a_compiled_step(dtype: torch.dtype) -> None:
    y, net, made = torch.zeros(0, dtype=torch.int64), torch.nn.Linear(3, 4, dtype=dtype), head()
    step = torch.compile(lambda x, y, **k: made(net(x), y, **k), backend="aot_eager", fullgraph=True)
    for given in ({}, {"labels2": y, "lam": torch.zeros(0)}):
        loss = step(torch.zeros(0, 3, dtype=dtype), y, **given)
        loss.backward()
        assert float(loss.detach()) == 0 and net.weight.grad is not None and net.weight.grad.eq(0).all()
    assert int(made.updates) == 0 and made.class_means.eq(0).all()
    x, a = torch.randn(5, 3, dtype=dtype), torch.arange(5)
    torch.testing.assert_close(step(x, a), made.eval()(net(x), a))
