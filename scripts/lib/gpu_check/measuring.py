"""Timers and inputs that several steps share."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from fastproto_kernels.gaussian_potential import gaussian_potential
from fastproto_kernels.lib.tile_sizes import Tile
from torch import Tensor


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def milliseconds(call: Callable[[], object], dry: bool, seconds: float = 0.4) -> dict[str, float]:
    """Median and minimum of the timed calls in ms and their number, after a warm-up; CUDA events on a GPU."""
    if dry:
        begin = time.perf_counter()
        call()
        return {"median_ms": 1e3 * (time.perf_counter() - begin), "calls": 1}
    times: list[float] = []
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    while len(times) < 5 or (time.perf_counter() - begin < seconds and len(times) < 200):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return {"median_ms": statistics.median(times), "least_ms": min(times), "calls": len(times)}


def graphed(call: Callable[[], object], dry: bool) -> Callable[[], object]:
    """The call as a CUDA graph, whose time excludes the kernel launches from Python."""
    if dry:
        return call
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def bfloat16_product(dry: bool) -> tuple[int, dict[str, float]]:
    """Operations and time of one large bfloat16 product, the reference for other rates."""
    size = 64 if dry else 8192
    a, b = (torch.randn(size, size, device=device()).to(torch.bfloat16) for _ in range(2))
    return 2 * size**3, milliseconds(lambda: a @ b, dry)


def unit_rows(count: int, dim: int, seed: int = 0) -> Tensor:
    generator = torch.Generator(device()).manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, dim, generator=generator, device=device()), dim=1)


def passes(
    count: int, dim: int, precision: str, *, parts: int | None = None, tile: Tile | None = None
) -> Callable[[], tuple[Tensor, Tensor]]:
    """One pass of the kernel over all pairs, as a function without arguments."""
    w, index = unit_rows(count, dim), torch.arange(count, device=device())
    return lambda: gaussian_potential(w, w, t=2.0, self_index=index, precision=precision, parts=parts, tile=tile)
