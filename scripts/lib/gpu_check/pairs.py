"""Times of passes over all pairs of points: the Gaussian potential, top-k scores, log-sum-exp."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable

import torch
from fastproto_kernels.lib.tile_sizes import Tile, operands_for
from fastproto_kernels.log_sum_exp import log_sum_exp
from fastproto_kernels.top_scores import top_scores
from torch import Tensor

from fastproto.functional import gaussian_potential
from lib.gpu_check.measuring import (
    bfloat16_product,
    clock_and_power,
    device,
    milliseconds,
    passes,
    product,
    unit_rows,
)
from lib.gpu_check.steps import Entries


def speed(dry: bool) -> Entries:
    """Time of a pass at C = 32768, and its rate (4 C² D operations) over the measured rate of a bfloat16 product."""
    operations, ceiling = bfloat16_product(dry)
    rate = operations / ceiling["median_ms"] * 1e3
    yield "bf16_gemm_tflops", rate / 1e12
    yield from sustained(dry)
    count = 40 if dry else 32768
    for precision, dim in itertools.product(("medium", "high", "higher"), (16,) if dry else (64, 128, 256, 512)):
        took = milliseconds(passes(count, dim, precision), dry)
        yield f"{precision} D={dim}", took | {"share_of_gemm": 4 * count**2 * dim / took["median_ms"] * 1e3 / rate}
    count = 40 if dry else 10000
    for precision, dim in itertools.product(("highest", "tf32", "tf32x3"), (16,) if dry else (128, 512)):
        yield f"kernel {precision} C={count} D={dim}", milliseconds(passes(count, dim, precision), dry)
    for precision, dim in itertools.product(("highest", "high", "medium"), (16,) if dry else (128, 512)):
        w = unit_rows(count, dim)
        took = milliseconds(lambda w=w, p=precision: gaussian_potential(w, precision=p), dry)  # type: ignore[misc]
        yield f"gaussian_potential {precision} C={count} D={dim}", took


def sustained(dry: bool) -> Entries:
    """Rates of products after seconds of load, with the clock and the power before and after."""
    yield "clock, power, temperature: before", clock_and_power()
    for dtype in (torch.bfloat16, torch.float32 if dry else torch.float16):
        operations, took = product(dtype, dry, seconds=2.0)
        yield f"sustained {str(dtype).removeprefix('torch.')} tflops", operations / took["median_ms"] / 1e9
    yield "clock, power, temperature: after", clock_and_power()


def attention(kernel: str, w: Tensor) -> tuple[Tensor, Tensor]:
    """A kernel of scaled_dot_product_attention as the pass at t = 2, with the self pair subtracted."""
    x = w.half()[None, None]
    op = getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}_attention")
    out, lse = op(x, x, x, *(() if kernel == "flash" else (None, True)), scale=4.0)[:2]
    potential = torch.exp(lse.float().reshape(-1)[: len(w)] - 4.0)
    return potential - 1, out[0, 0].float() * potential[:, None] - w


def attention_peers(dry: bool) -> Entries:
    """Attention at the D that its kernels take, beside our pass."""
    for dim in () if dry else (64, 128, 256):
        w = unit_rows(16384, dim)
        yield f"kernel medium D={dim}", milliseconds(passes(16384, dim, "medium"), dry)
        true = gaussian_potential(w)[1]
        for kernel in ("flash", "efficient", "cudnn"):
            try:
                pull = attention(kernel, w)[1]
                took = milliseconds(lambda k=kernel, w=w: attention(k, w), dry)  # type: ignore[misc]
            except RuntimeError as error:  # a D or a GPU that the kernel does not take
                yield f"{kernel} attention D={dim}", f"not measured: {str(error).splitlines()[0][:80]}"
                continue
            yield f"{kernel} attention D={dim}", took | {"error": float((pull - true).norm() / true.norm())}


def naive(w: Tensor) -> tuple[Tensor, Tensor]:
    """The direct formula in torch, with a C×C matrix."""
    g = torch.exp(4.0 * (w @ w.T - 1)).fill_diagonal_(0.0)
    return g.sum(1, dtype=torch.float32), g @ w


def peers(dry: bool) -> Entries:
    """The direct formula in torch, eager and compiled, beside the kernel at the same shape."""
    count, dim = (40, 16) if dry else (16384, 256)
    w = unit_rows(count, dim)
    for precision in ("medium", "high", "higher", "highest"):
        yield f"kernel {precision}", milliseconds(passes(count, dim, precision), dry)
    yield "gaussian_potential highest", milliseconds(lambda: gaussian_potential(w), dry)
    for form in ("naive",) if dry else ("naive", "torch.compile"):
        for dtype in (torch.float32, torch.bfloat16):
            points, call = w.to(dtype), naive if form == "naive" else torch.compile(naive)
            took = milliseconds(lambda call=call, points=points: call(points), dry)  # type: ignore[misc]
            yield f"{form} {str(dtype).removeprefix('torch.')}", took
    yield from attention_peers(dry)


def score_passes(dry: bool) -> Entries:
    """Time of top-k scores and log-sum-exp, and the rate of their products over the rate of a bfloat16 product."""
    operations, ceiling = bfloat16_product(dry)
    rate = operations / ceiling["median_ms"]
    for m, c, dim in ((40, 50, 16),) if dry else ((10_000, 10_000, 128), (10_000, 100_000, 512), (256, 100_000, 512)):
        points, others = unit_rows(m, dim), unit_rows(c, dim, 1)
        prices = 0.01 * torch.rand(c, device=device())
        for precision in ("medium", "higher"):
            work = 2 * m * c * dim * operands_for(precision, 0.0, False)[1]
            for name, call in score_calls(points, others, prices, precision).items():
                took = milliseconds(call, dry, seconds=0.2)
                yield f"{name} {precision} {m}x{c} D={dim}", took | {"share_of_gemm": work / took["median_ms"] / rate}
        if m * c <= 10**8:
            took = milliseconds(lambda p=points, o=others: (p @ o.T).topk(16), dry, seconds=0.2)  # type: ignore[misc]
            yield f"torch matmul and topk {m}x{c} D={dim}", took


def score_calls(points: Tensor, others: Tensor, prices: Tensor, precision: str) -> dict[str, Callable[[], object]]:
    return {
        "top 16": lambda: top_scores(points, others, 16, prices=prices, precision=precision),
        "top 1": lambda: top_scores(points, others, 1, precision=precision),
        "log_sum_exp": lambda: log_sum_exp(points, others, scale=20.0, bias=prices, precision=precision),
    }


def million(dry: bool) -> Entries:
    """A pass over a million points."""
    count = 50 if dry else 1_000_000
    call = passes(count, 64, "medium")
    if not dry:
        torch.cuda.reset_peak_memory_stats()
    yield f"one pass C={count} D=64", milliseconds(call, dry, seconds=0.1)
    yield "finite", bool(call()[1].isfinite().all())
    if not dry:
        yield "peak_gib", torch.cuda.max_memory_allocated() / 2**30


def tune(dry: bool) -> Entries:
    """Searches block sizes for "medium" and "high", best first; runs until its process is stopped."""
    count = 40 if dry else 16384
    sizes = [(m, n, w, s) for m in (64, 128) for n in (32, 64, 128) for w in (4, 8) for s in (2, 3, 4)]
    for precision, dim in itertools.product(("medium", "high"), (16,) if dry else (512, 256, 128, 64)):
        found: list[tuple[float, list[int]]] = []
        for m, n, warps, stages in sizes[:2] if dry else sizes:
            if dim * (m + n * stages) * 2 > 227 * 1024 or m * dim > 4096 * warps:  # exceeds the shared memory or spills
                continue
            with contextlib.suppress(Exception):  # needs too much shared memory: skipped
                call = passes(count, dim, precision, tile=Tile(m, n, warps, stages))
                found.append((milliseconds(call, dry, seconds=0.05)["median_ms"], [m, n, warps, stages]))
                yield f"{precision} D={dim}", [{"ms": ms, "m_n_warps_stages": tile} for ms, tile in sorted(found)[:5]]
