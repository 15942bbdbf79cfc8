"""The limits of the machine that other rows are shares of: sustained products by precision, and a copy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from .comparison import Call, Comparison, Provider, Setup, Size, Unavailable, Work

COPY = "copy"
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Inputs = tuple[Size, torch.device]


def name_of_product(precision: str) -> str:
    return f"product, {precision}"


def product(precision: str, inputs: Inputs) -> Setup:
    """A square product in this precision; ``tf32`` is float32 with CUDA's short mantissa."""
    size, device = inputs
    if device.type == "cpu" and precision == "float16":
        raise Unavailable("on CUDA only: a CPU widens float16")
    n = size["n"] if device.type == "cpu" else 8192
    a, b = (torch.randn(n, n, device=device).to(PRECISIONS.get(precision, torch.float32)) for _ in range(2))
    call: Call = partial(_product, a, b, precision == "tf32")
    return Setup(call, Work(flops=2.0 * n**3, precision=precision))


def _product(a: torch.Tensor, b: torch.Tensor, tf32: bool, _: int) -> torch.Tensor:
    if a.device.type != "cuda":
        return a @ b
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
    on_both: dict[str, Callable[[Inputs], Setup]] = {
        name_of_product(precision): partial(product, precision) for precision in PRECISIONS
    }
    found = {name: Provider(build) for name, build in on_both.items()} | {COPY: Provider(copy)}
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
