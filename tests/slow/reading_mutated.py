"""One kind of file in a process of its own: ``python -m tests.slow.reading_mutated KIND FOLDER SECONDS``.

It reads mutated files until the time is over, and prints what it found as JSON.
"""

from __future__ import annotations

import ctypes
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

from .kinds_of_files import KINDS, PIXELS
from .mutations import mutate, mutate_within

MARGIN = 64 * 2**20  # bytes that any call may take beside the multiple of its file
PER_PIXEL = 48
UNPACKED = 16 * 2**20


def resident(field: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most since :func:`forget_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise AssertionError(f"no {field} in /proc/self/status")


def forget_peak() -> None:
    ctypes.CDLL(None).malloc_trim(0)  # what earlier calls have freed counts again
    Path("/proc/self/clear_refs").write_text("5")


def run_kind(kind: str, folder: Path, seconds: float) -> dict[str, Any]:
    """Read mutated files until the time is over; what was found, as plain numbers."""
    import torch

    torch.set_num_threads(1)
    make, read, errors, multiple = KINDS[kind]
    bases = [(path.suffix, path.read_bytes()) for path in make(folder)]
    allowed = MARGIN + max(4 * UNPACKED, 2 * PIXELS * PER_PIXEL if kind == "pictures" else 0)
    (folder / f"file{bases[0][0]}").write_bytes(bases[0][1])
    read(folder / f"file{bases[0][0]}")  # what is imported at first use is no memory of a file
    rng = random.Random(kind)
    counts = {"mutations": 0, "read": 0, "refused": 0, "peak": 0}
    slowest = 0.0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        number = counts["mutations"]
        suffix, content = bases[number % len(bases)]
        if number >= len(bases):  # at first as they are
            content = (mutate_within if rng.random() < 0.5 else mutate)(content, rng)
        path = folder / f"file{suffix}"
        path.write_bytes(content)
        forget_peak()
        before, began = resident("VmRSS"), time.monotonic()
        try:
            read(path)
            counts["read"] += 1
        except errors as error:
            message = str(error)
            assert path.name in message or kind == "configurations", f"unnamed: {message}"  # a setting has its own name
            assert "\n" not in message.strip(), f"several lines: {message}"
            counts["refused"] += 1
        taken = resident("VmHWM") - before
        slowest = max(slowest, time.monotonic() - began)
        counts["peak"] = max(counts["peak"], taken)
        assert taken <= allowed + multiple * len(content), f"{taken:,} bytes for a file of {len(content):,}"
        assert not Path("executed").exists(), "executed"
        counts["mutations"] += 1
    return counts | {"slowest": round(slowest, 2)}


if __name__ == "__main__":
    print(json.dumps(run_kind(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]))))
