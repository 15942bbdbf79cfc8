"""Where the kernel tests run: on the GPU, else under Triton's interpreter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

from fastproto.backend import kernel, use_backend
from fastproto.functional import check_batches

from .helpers import ipm_batch, unit_rows

triton = pytest.importorskip("triton")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2])


if DEVICE.type == "cpu" and version(triton.__version__) < (3, 7) and version(numpy.__version__) >= (2, 4):
    pytest.skip(
        "the interpreter of this Triton turns arrays of one element into numbers, which NumPy 2.4 refuses",
        allow_module_level=True,
    )


needs_cuda = pytest.mark.skipif(
    DEVICE.type == "cpu", reason="needs a GPU: streams, graphs, TF32 and bfloat16 arithmetic"
)
REPEATS = 4 if DEVICE.type == "cuda" else 1  # of a run that must give the same bits; the interpreter has no races


@contextmanager
def on_kernels(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> Iterator[list[str]]:
    """Everything inside asks for Triton; gives a list that grows by the ops whose kernels these modules launch.

    A bad batch that no test has asked about is an error at the end.
    """
    launched: list[str] = []

    def counted(op: str) -> Any:
        launched.append(op)
        return kernel(op)

    for module in modules:
        monkeypatch.setattr(module, "kernel", counted)
    with use_backend("triton"):
        yield launched
    check_batches()


def rows(count: int, dim: int) -> Tensor:
    return unit_rows(count, dim).to(DEVICE)


def some(*indices: int) -> Tensor:
    return torch.tensor(indices, device=DEVICE)


def batch(b: int, c: int, d: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, labels, prototypes and assignment."""
    x, labels, w, assignment = (part.to(DEVICE) for part in ipm_batch(b, c, d))
    return x.to(dtype), labels, w, assignment


def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that a kernel should write begins as NaN, or as a number that no index, label or count has."""

    def filled(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def made(*arguments: Any, **options: Any) -> torch.Tensor:
            tensor = make(*arguments, **options)
            return tensor.fill_(torch.nan if tensor.is_floating_point() else -12345)

        return made

    monkeypatch.setattr(torch, "empty", filled(torch.empty))
    monkeypatch.setattr(torch, "empty_like", filled(torch.empty_like))
