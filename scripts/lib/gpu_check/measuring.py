"""Timers and inputs that several steps share."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator

import torch
from fastproto_kernels.gaussian_potential import gaussian_potential
from fastproto_kernels.lib.tile_sizes import Tile
from torch import Tensor

COMPILE = "FASTPROTO_GPU_CHECK_COMPILE"  # environment variable of a step that only compiles


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def only_compile() -> None:
    """From now on :func:`milliseconds` calls once, for what that compiles and caches on disk."""
    os.environ[COMPILE] = "1"


def milliseconds(call: Callable[[], object], dry: bool, seconds: float = 0.15) -> dict[str, float]:
    """Median and minimum of the timed calls in ms and the number of rounds, after a warm-up.

    On a GPU a round is as many calls between two events as take about a millisecond, so that the launch of one call
    from Python overlaps with the run of the one before.
    """
    if dry or COMPILE in os.environ:
        begin = time.perf_counter()
        call()
        return {"median_ms": 1e3 * (time.perf_counter() - begin), "calls": 1}
    for _ in range(3):
        call()
    count = max(1, min(100, round(1 / between_events(call, 1))))
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < 5 or (time.perf_counter() - begin < seconds and len(times) < 200):
        times.append(between_events(call, count))
    return {"median_ms": statistics.median(times), "least_ms": min(times), "calls": len(times)}


def between_events(call: Callable[[], object], count: int) -> float:
    """Milliseconds of one of ``count`` calls between two CUDA events."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(count):
        call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / count


@contextlib.contextmanager
def waiting_is(mode: str) -> Iterator[None]:
    """What waits for the GPU is an ``error``, or gives a warning (``warn``)."""
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


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
    return product(torch.bfloat16, dry)


def product(dtype: torch.dtype, dry: bool, seconds: float = 0.15) -> tuple[int, dict[str, float]]:
    """Operations and time of one large product; 0.15 seconds are a burst, some seconds the sustained rate."""
    size = 64 if dry else 8192
    a, b = (torch.randn(size, size, device=device()).to(dtype) for _ in range(2))
    return 2 * size**3, milliseconds(lambda: a @ b, dry, seconds)


def clock_and_power() -> str:
    """What nvidia-smi says now: clock in MHz, power in W, temperature in °C."""
    query = "--query-gpu=clocks.sm,power.draw,temperature.gpu"
    try:
        command = ["nvidia-smi", query, "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "not measured: nvidia-smi does not run"


def unit_rows(count: int, dim: int, seed: int = 0) -> Tensor:
    generator = torch.Generator(device()).manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, dim, generator=generator, device=device()), dim=1)


def passes(
    count: int, dim: int, precision: str, *, parts: int | None = None, tile: Tile | None = None
) -> Callable[[], tuple[Tensor, Tensor]]:
    """One pass of the kernel over all pairs, as a function without arguments."""
    w, index = unit_rows(count, dim), torch.arange(count, device=device())
    return lambda: gaussian_potential(w, w, t=2.0, self_index=index, precision=precision, parts=parts, tile=tile)
