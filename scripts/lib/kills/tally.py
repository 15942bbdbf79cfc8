"""The counts of one set of runs."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Tally:
    """Counts and failures of a set; thread-safe."""

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kind: str, faults: list[str], seconds: float = 0.0) -> None:
        with self.lock:
            self.counts[kind] += 1
            self.slowest = max(self.slowest, seconds)
            self.failures += [f"{kind}: {fault}" for fault in faults]
            for fault in faults:
                print(f"FAILED {self.name}, {kind}: {fault}", flush=True)

    def report(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.counts.items()))
        slowest = f"; the slowest end took {self.slowest:.1f} s" if self.slowest else ""
        return f"{self.name}: {sum(self.counts.values())} ({kinds}), {len(self.failures)} failed{slowest}"
