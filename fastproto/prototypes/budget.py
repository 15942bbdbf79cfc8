"""The budget of a search for prototypes, what it has spent, and its trace of L_uni."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

READ_TOGETHER = 50  # values of L_uni per device-to-host copy
PATIENCE = 2.0  # seconds after which one who waits at a terminal is shown how far a search is


@dataclass
class Budget:
    """A pass is one evaluation of the potential and its gradient over all pairs."""

    limit: int | None = None  # passes
    deadline: float | None = None  # of time.perf_counter()
    progress: bool | None = False  # None: after some seconds, and only at a terminal
    spent: float = 0.0
    interrupted: bool = False
    near_the_end: bool = False  # whether the search ended by its own rule, see NearTheEnd
    trace: list[tuple[float, float, float]] = field(default_factory=list)  # passes spent, t, L_uni of the last iterate
    unread: list[tuple[float, float, Tensor]] = field(default_factory=list)  # the same, its L_uni still on the device
    began: float = field(default_factory=time.perf_counter)
    shown: bool = False

    def over(self) -> bool:
        if self.interrupted or (self.limit is not None and self.spent >= self.limit):
            return True
        return self.deadline is not None and time.perf_counter() >= self.deadline

    def affords(self, passes: float) -> bool:
        return not self.over() and (self.limit is None or self.spent + passes <= self.limit)

    def count(self, t: float, value: float | Tensor, passes: float = 1.0) -> None:
        """Record an evaluation; a scalar tensor is copied to the host later, together with others."""
        self.spent += passes
        if isinstance(value, Tensor):
            self.unread.append((self.spent, t, value))
            if len(self.unread) == READ_TOGETHER:
                self.read()
        else:
            self._note(self.spent, t, value)

    def read(self) -> None:
        if self.unread:
            values = torch.stack([value for _, _, value in self.unread]).tolist()
            for (spent, t, _), value in zip(self.unread, values, strict=True):
                self._note(spent, t, value)
            self.unread.clear()

    def _note(self, spent: float, t: float, value: float) -> None:
        self.trace.append((spent, t, value))
        if self.progress or (self.progress is None and self._at_a_terminal()):
            self.shown = True
            limit = "" if self.limit is None else f" of {self.limit}"
            print(f"\rprototypes: pass {spent:.0f}{limit}, t = {t:g}, L_uni {value:.7f} ", end="", file=sys.stderr)

    def _at_a_terminal(self) -> bool:
        waited = time.perf_counter() - self.began > PATIENCE
        return waited and sys.stderr is not None and sys.stderr.isatty()

    def finish(self) -> None:
        self.read()
        if self.shown:
            print(file=sys.stderr)

    def lowest(self) -> float:
        """The lowest L_uni that was seen; infinite before any."""
        return min((value for _, _, value in self.trace), default=math.inf)
