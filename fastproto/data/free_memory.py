"""How much memory may still be taken."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path


def free_memory() -> float:
    """Bytes free on the machine or, if less, allowed to its container; inf if unknown (not Linux)."""
    found = [math.inf]
    with suppress(OSError, ValueError):
        lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
        found += [1024.0 * int(words[1]) for words in lines if words[0] == "MemAvailable:"]
    with suppress(OSError, ValueError):  # "max" is no limit
        found.append(float(int(Path("/sys/fs/cgroup/memory.max").read_text())))
    return min(found)
