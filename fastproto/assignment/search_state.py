"""The state of one column generation search: the reader of the scores, the best result so far, the final result."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from fastproto.assignment.array_types import Floats, Ints, Ints32
from fastproto.assignment.certificate import Ending
from fastproto.assignment.scores import EVERY, PerRow, Rows, Scores
from fastproto.support.cancellation import check_stop

SAMPLE_ROWS = 4096  # rows from which a sample of them is tested before a pass over all

Accept: TypeAlias = Callable[
    [float, float, Floats], bool
]  # (objective, gap, prices): whether the result is good enough


class OutOfTime(Exception):
    """Ends a search, which then returns the best result so far."""


class LongLists(Exception):
    """Ends a search whose lists have grown too long."""


@dataclass
class ScoreReader:
    """Reads the scores: counts passes, checks the deadline and prints progress."""

    scores: Scores
    spread: float  # the standard deviation of the scores: the unit of temperatures, steps and tolerances
    deadline: float | None = None
    progress: bool = False
    passes: float = 0.0
    started: float = field(default_factory=time.perf_counter)
    _columns: Ints = field(default_factory=lambda: np.empty(0, np.int64))  # the argument of the last call of matched
    _matched: Floats = field(default_factory=lambda: np.empty(0))

    @property
    def rows(self) -> int:
        return self.scores.shape[0]

    @property
    def columns(self) -> int:
        return self.scores.shape[1]

    def top(
        self, prices: Floats, k: int, floor: PerRow = None, rows: Rows = EVERY, within: PerRow = None
    ) -> tuple[Floats, Ints32]:
        """:meth:`Scores.top`, counted as a pass over these rows."""
        self.check_time()
        values, indices = self.scores.top(prices, min(k, self.columns), floor, rows, within)
        self.passes += len(values) / self.rows
        return values, indices

    def matched(self, columns: Ints) -> Floats:
        """s_iA(i) in float64 for A = ``columns``; the last result is cached."""
        columns = columns[: self.rows]
        if not np.array_equal(self._columns, columns):
            rows = np.arange(self.rows, dtype=np.int32)
            self._columns, self._matched = columns.copy(), self.scores.exact(rows, columns.astype(np.int32))
        return self._matched

    def profits(self, columns: Ints, prices: Floats) -> Floats:
        """s_iA(i) - p_A(i) for A = ``columns``."""
        found: Floats = self.matched(columns) - prices[columns[: self.rows]]
        return found

    def check_time(self) -> None:
        check_stop()
        if self.deadline is not None and time.perf_counter() > self.deadline:
            raise OutOfTime

    def say(self, text: str) -> None:
        if self.progress:
            seconds = time.perf_counter() - self.started
            print(f"assignment {seconds:7.1f} s, {self.passes:.2f} passes: {text}", file=sys.stderr, flush=True)


@dataclass
class State:
    """The best result so far: ``columns`` [m] holds the column of each row, then the left-over columns."""

    reader: ScoreReader
    columns: Ints
    prices: Floats
    previous: Ints  # [m]: the column of each row that wins ties
    tie_bonus: float  # added to the score of the previous column of a row
    accept: Accept  # whether the previous result is good enough
    warm: bool  # whether columns and prices come from a previous result
    sample_rows: int = SAMPLE_ROWS
    most_listed: float = math.inf

    def bonus(self, rows: Ints, columns: Ints32) -> Floats:
        extra: Floats = self.tie_bonus * (columns == self.previous[rows])
        return extra


@dataclass(frozen=True)
class Found:
    """The result of a search: ``columns`` [m] holds the column of each row, then the left-over columns."""

    columns: Ints
    prices: Floats
    objective: float  # Σ_i s_iA(i)
    gap: float
    passes: float
    reason: str
    unchanged: bool = False  # whether it is the previous result
    ending: Ending = "converged"
