"""The peak memory of a call: of the process on Linux, of the allocator on CUDA."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")
T = TypeVar("T")


def extra_peak(call: Callable[[], T], device: torch.device) -> tuple[T, float | None]:
    """What ``call`` returns, and the MiB by which it raises the peak memory; None where this cannot be measured."""
    if device.type == "cuda":
        return _on_cuda(call, device)
    before = _reset()
    found = call()
    peak = _kib("VmHWM")
    return found, None if before is None or peak is None else max(0.0, (peak - before) / 1024)


def _on_cuda(call: Callable[[], T], device: torch.device) -> tuple[T, float]:
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    found = call()
    return found, (torch.cuda.max_memory_allocated(device) - before) / 2**20


def _reset() -> int | None:
    """Return freed memory to the system, set the peak to the present size, and return that size in KiB."""
    if sys.platform != "linux":
        return None
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)
    try:
        RESET.write_text("5")
    except OSError:
        return None
    return _kib("VmRSS")


def _kib(field: str) -> int | None:
    if not STATUS.is_file():
        return None
    lines = STATUS.read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(field)), None)
