"""Helpers of the benchmarks: interleaved timing, the machine, peak memory of a process, a fitted exponent."""

from __future__ import annotations

import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fastproto.cpu.hardware import quick_bfloat16, quick_integers

HERE = Path(__file__).parent
RESULTS = HERE / "results"
Record = dict[str, Any]
"""A JSON object, whose keys its writer and its readers agree on."""


def interleaved(
    providers: dict[str, Callable[[], object]], seconds: float, repeats: dict[str, int] | None = None
) -> dict[str, list[float]]:
    """Seconds per call of each provider, in turn, for at least three rounds; ``repeats`` calls are timed together."""
    times: dict[str, list[float]] = {name: [] for name in providers}
    for call in providers.values():
        call()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < 3:
        for name, call in providers.items():
            count = (repeats or {}).get(name, 1)
            start = time.perf_counter()
            for _ in range(count):
                call()
            times[name].append((time.perf_counter() - start) / count)
    return times


def summary(seconds: list[float]) -> Record:
    return {"median_s": statistics.median(seconds), "min_s": min(seconds), "max_s": max(seconds), "runs": len(seconds)}


def memory_kib(field: str) -> int:
    """VmRSS or VmHWM of this process in KiB; ru_maxrss would include the peak of the parent process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1])


def extra_peak(setup: str, warm: str, call: str) -> float:
    """MiB by which ``call`` raises the peak memory of a fresh process, its result included.

    The arguments are lines of Python; ``warm`` runs before ``call`` and should load and compile what it needs.
    """
    code = (
        f"import sys; sys.path.insert(0, {str(HERE)!r})\nimport torch, common\ntorch.set_num_threads(1)\n"
        f"{setup}\n{warm}\nbefore = common.memory_kib('VmRSS')\nfound = {call}\n"
        "print('MiB', (common.memory_kib('VmHWM') - before) / 1024)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(found.stdout.split()[-1])


def machine() -> Record:
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=HERE
    ).stdout.strip()
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "load_average_before": os.getloadavg()[0],
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "quick_bfloat16": quick_bfloat16(torch.device("cpu")),
        "quick_integers": quick_integers(torch.device("cpu")),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit,
    }


def exponent_error(sizes: list[int], seconds: list[float]) -> float:
    """Standard error of :func:`exponent`; inf for two points."""
    x, y = [math.log(size) for size in sizes], [math.log(second) for second in seconds]
    line, middle = statistics.linear_regression(x, y), statistics.mean(x)
    squares = sum((b - line.slope * a - line.intercept) ** 2 for a, b in zip(x, y, strict=True))
    freedom = len(x) - 2
    return math.sqrt(squares / freedom / sum((a - middle) ** 2 for a in x)) if freedom else math.inf


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """The exponent e of the fit seconds ~ size^e, by least squares of the logarithms."""
    return statistics.linear_regression([math.log(x) for x in sizes], [math.log(y) for y in seconds]).slope
