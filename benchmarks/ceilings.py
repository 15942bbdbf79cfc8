"""The limits of the machine that other rows are shares of: sustained products by precision, and a copy."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from fastproto.cpu import gaussian_transposed as onednn
from fastproto.cpu.hardware import quick_integers

from .comparison import Comparison, Provider, Setup, Size, Unavailable, Work

COPY = "copy"
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8, "float16": torch.float16}
HALVES = 3  # float16 products that the kernels' precision "higher" takes for one of float32
Inputs = tuple[Size, torch.device]
Way = Callable[[], Tensor]


def name_of_product(precision: str) -> str:
    return f"product, {precision}"


def in_halves(work: Work) -> Work:
    """The same products by float16 halves, as the Triton kernels for scores form them."""
    return replace(work, flops=HALVES * work.flops, precision="float16")


def product(precision: str, inputs: Inputs) -> Setup:
    """A square product in this precision, in the fastest way; ``tf32`` is float32 with CUDA's short mantissa.

    A product of 4,096 rows sustains no more than one of 2,048.
    """
    size, device = inputs
    if device.type == "cpu" and precision == "float16":
        raise Unavailable("on CUDA only: a CPU widens float16")
    if precision == "int8" and not quick_integers(device):
        raise Unavailable("this processor has no fast products of 8-bit integers")
    n = size["n"] if device.type == "cpu" else 8192
    a, b = (factor(n, precision, device) for _ in range(2))
    way = fastest(ways(a, b)) if device.type == "cpu" else partial(_on_cuda, a, b, precision == "tf32")
    return Setup(lambda _: way(), Work(flops=2.0 * n**3, precision=precision))


def factor(n: int, precision: str, device: torch.device) -> Tensor:
    if precision == "int8":
        return torch.randint(-127, 128, (n, n), dtype=torch.int8, device=device)
    return torch.randn(n, n, device=device).to(PRECISIONS.get(precision, torch.float32))


def ways(a: Tensor, b: Tensor) -> list[Way]:
    """Products on the CPU as our ops form them, with either layout; for float32 also by oneDNN."""
    multiply = torch._int_mm if a.dtype == torch.int8 else torch.mm
    found: list[Way] = [partial(multiply, a, b), partial(multiply, a, b.T)]
    if a.dtype == torch.float32 and onednn.has_product():
        found.append(partial(onednn.product, a, b))
    return found


def fastest(found: list[Way]) -> Way:
    """The way that takes the least time, the better of two calls each."""
    return min(found, key=lambda way: min(_seconds(way), _seconds(way)))


def _seconds(way: Way) -> float:
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def _on_cuda(a: Tensor, b: Tensor, tf32: bool) -> Tensor:
    before, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, tf32
    found = a @ b
    torch.backends.cuda.matmul.allow_tf32 = before
    return found


def copy(inputs: Inputs) -> Setup:
    """Reads and writes a tensor that no cache holds."""
    size, device = inputs
    source = torch.ones(size["copied"] << 18, device=device)
    target = torch.empty_like(source)
    return Setup(lambda _: target.copy_(source), Work(bytes=2.0 * source.nbytes))


def _providers() -> dict[str, Provider]:
    found = {name_of_product(precision): Provider(partial(product, precision)) for precision in PRECISIONS}
    found |= {COPY: Provider(copy)}
    return found | {name_of_product("tf32"): Provider(partial(product, "tf32"), devices=("cuda",))}


CEILINGS = Comparison(
    op="ceilings",
    sizes={
        "smoke": [{"n": 1024, "copied": 128}],
        "small": [{"n": 2048, "copied": 256}],
        "full": [{"n": 4096, "copied": 512}],
    },
    inputs=lambda size, device: (size, device),
    providers=_providers(),
)
