"""A full pass of the Gaussian potential: the potential of every point and its pull, over all pairs.

Attention is this op: with queries, keys and values W and scale 2t its output times exp(lse - 2t) is the pull, and
exp(lse - 2t) the potential, both with the self pair, which is subtracted. The authors' form is ``pdist``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from fastproto import reference
from fastproto.backend import resolve
from fastproto.cpu.gaussian_blocks import Blocks
from fastproto.cpu.gaussian_potential import may_round
from fastproto.cpu.gaussian_rounded import RoundedPass
from fastproto.cpu.hardware import hardware_of, quick_bfloat16
from fastproto.functional import gaussian_potential
from fastproto.support.options import PRECISIONS, Precision

from .comparison import Call, Case, Comparison, Provider, Record, Row, Setup, Size, Unavailable, Work, compared
from .instances import IN_TURN, unit_rows
from .peers import one_line

T = 2.0
ASKED_FOR = 256  # rows whose error is measured
Pass = Callable[[Tensor], tuple[Tensor, Tensor]]


def inputs(size: Size, device: torch.device) -> Tensor:
    return unit_rows(size["C"], size["D"], device)


def symmetric_loop(w: Tensor, block: int = 1024) -> tuple[Tensor, Tensor]:
    """A blocked loop that visits each pair of blocks once."""
    potential, pull = torch.zeros(len(w), device=w.device), torch.zeros_like(w)
    for i in range(0, len(w), block):
        for j in range(i, len(w), block):
            a, b = w[i : i + block], w[j : j + block]
            g = torch.exp(2 * T * (a @ b.T - 1))
            if i == j:
                g.fill_diagonal_(0)
            potential[i : i + block] += g.sum(1)
            pull[i : i + block] += g @ b
            if i != j:
                potential[j : j + block] += g.sum(0)
                pull[j : j + block] += g.T @ a
    return potential, pull


def attention(kernel: str, dtype: torch.dtype, w: Tensor) -> tuple[Tensor, Tensor]:
    """A kernel of ``scaled_dot_product_attention`` as the pass."""
    x = w.to(dtype)[None, None]
    op = getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}")
    more = {
        "_scaled_dot_product_efficient_attention": (None, True),
        "_scaled_dot_product_cudnn_attention": (None, True),
    }
    out, lse = op(x, x, x, *more.get(f"_scaled_dot_product_{kernel}", ()), scale=2 * T)[:2]
    potential = torch.exp(lse.float().reshape(-1)[: len(w)] - 2 * T)
    return potential - 1, out[0, 0].float() * potential[:, None] - w


def rated(run: Pass, precision: str, w: Tensor) -> Setup:
    """The pass, its work at this precision of the products, and the error of its tangent gradient."""
    needed = replace(work({"C": len(w), "D": w.shape[1]}), precision=precision)
    last: list[tuple[Tensor, Tensor]] = []

    def call(_: int) -> tuple[Tensor, Tensor]:
        last[:] = [run(w)]
        return last[0]

    return Setup(call, needed, facts=lambda: gradient_error(last[0][1], w))


def gradient_error(pull: Tensor, w: Tensor) -> Record:
    """Relative error of the tangent gradient against float64, on about 256 of the rows."""
    some = torch.arange(0, len(w), max(1, len(w) // ASKED_FOR), device=w.device)
    x, p = w.double(), w[some].double()
    true = reference.gaussian_potential(p, x, T, some)[1]
    found = pull[some].double()
    found, true = (pull - (pull * p).sum(1, keepdim=True) * p for pull in (found, true))
    return {"gradient_error": float((found - true).norm() / true.norm())}


def ours(precision: Precision, w: Tensor) -> Setup:
    if precision != "highest" and w.device.type == "cpu" and not quick_bfloat16(w.device):
        raise Unavailable("this processor has no fast bfloat16: it runs as highest")
    return rated(lambda w: gaussian_potential(w, precision=precision), products_of(precision, w), w)


def products_of(precision: Precision, w: Tensor) -> str:
    """The precision in which our pass multiplies, as its code chooses it for these points."""
    if precision == "highest":
        return "float32"
    if resolve("gaussian_potential", w).backend == "triton":
        return "float16"  # of two halves of the points the second is not counted
    quick = hardware_of(w.device)
    if not (quick.bfloat16 and may_round(precision, T, w.dtype, w.shape[1])):
        return "float32"
    found = RoundedPass(w, None, 2 * T, None, Blocks(), precision=precision, integers=quick.integers)
    return "int8" if found.step else "bfloat16"


def attention_row(kernel: str, dtype: torch.dtype, w: Tensor) -> Setup:
    run = partial(attention, kernel, dtype)
    try:
        run(w[:64])
    except (RuntimeError, AttributeError) as error:  # a D or dtype that the kernel does not take, another torch
        raise Unavailable(f"the kernel does not take this: {one_line(error)}") from None
    return rated(run, str(dtype).removeprefix("torch."), w)


def autograd(w: Tensor, compiled: bool = False) -> Call:
    """The direct formula of the potential's logarithm, differentiated by autograd."""
    found = torch.compile(_log_mean) if compiled else _log_mean
    return _differentiated(found, w)


def _log_mean(w: Tensor) -> Tensor:
    return (torch.exp(2 * T * (w @ w.T - 1)).sum() - len(w)).log()  # each self pair adds 1


def authors_pdist(w: Tensor) -> Call:
    """The uniformity loss in the form that its authors, Wang and Isola, publish."""
    return _differentiated(lambda w: torch.pdist(w).square().mul(-T).exp().mean().log(), w)


def _differentiated(function: Callable[[Tensor], Tensor], w: Tensor) -> Call:
    leaf = w.clone().requires_grad_()
    return lambda _: torch.autograd.grad(function(leaf), leaf)


def work(size: Size) -> Work:
    """C²D operations for the scores, which are symmetric, and 2C²D for the pull."""
    return Work(flops=3.0 * size["C"] ** 2 * size["D"], bytes=8.0 * size["C"] * size["D"])


SERIES = [{"C": c, "D": 128} for c in (500, 1_000, 2_000, 4_000, 10_000)]
CUDA_ATTENTION = {"flash attention": "flash_attention", "efficient attention": "efficient_attention"}
CUDA_ATTENTION |= {"cuDNN attention": "cudnn_attention"}
GAUSSIAN_POTENTIAL = Comparison(
    op="gaussian_potential",
    sizes={
        "smoke": [{"C": 1_000, "D": 64}],
        "small": [*SERIES, {"C": 4_000, "D": 32}, {"C": 10_000, "D": 512}],
        "full": [*SERIES, *({"C": 4_000, "D": d} for d in (32, 64, 256, 512)), {"C": 10_000, "D": 512}],
    },
    inputs=inputs,
    providers={
        **{f"fastproto, {name}": Provider(partial(ours, name)) for name in PRECISIONS},
        "symmetric loop": Provider(lambda w: rated(symmetric_loop, "float32", w), warm=True),
        "autograd": Provider(autograd, small=4_000, warm=True),
        "authors' formula": Provider(authors_pdist, small=1_000, warm=True),
        "torch.compile": Provider(partial(autograd, compiled=True), small=1_000, compiles=True),
        "attention": Provider(
            partial(attention_row, "flash_attention_for_cpu", torch.float32), warm=True, devices=("cpu",)
        ),
        **{
            name: Provider(partial(attention_row, kernel, torch.float16), devices=("cuda",))
            for name, kernel in CUDA_ATTENTION.items()
        },
    },
    work=work,
    graph=True,
    serial_part=IN_TURN,
)


@compared(GAUSSIAN_POTENTIAL)
def test_gaussian_potential(case: Case, row: Row) -> None:
    row(case)
