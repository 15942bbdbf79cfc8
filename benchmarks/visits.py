"""Visits to groups after the first, which change what pytest-benchmark has of their rows."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from .ceilings import CEILINGS
from .comparison import Case
from .groups import FURTHER, SECONDS, Session
from .timing import failed

RETRIES = 3


@dataclass(frozen=True)
class FurtherVisits:
    """The rows of a run: ``suite`` is the session of pytest-benchmark, ``terminal`` its reporter, if any."""

    suite: Any
    session: Session
    wanted: list[Case]
    terminal: Any

    def to_short_rows(self) -> None:
        """Time short rows at a second moment: a machine may be slow for all rounds of one visit."""
        visits = self.session.second_visits(self.wanted)
        if visits:
            self._say(f"the short calls of {len(visits)} groups are timed once more")
        for rows in visits:
            self._time_again(rows)

    def leave_out_ceilings(self) -> None:
        """The limits of the machine are not compared: memory that others share is at times twice as fast."""
        for known in self.suite.compared_mapping.values():
            for name in [name for name, row in known.items() if row["extra_info"].get("op") == CEILINGS.op]:
                del known[name]

    def to_slower_rows(self) -> None:
        """Time groups again in which a comparison would fail: a change that slows a row does so at every moment."""
        until = time.perf_counter() + FURTHER * SECONDS[self.session.scale]
        for _ in range(RETRIES):
            for group in self.slower_groups():
                if time.perf_counter() < until:
                    self._say(f"slower than before, timed once more: {group}")
                    self._time_again([case for case in self.wanted if case.group == group])

    def slower_groups(self) -> list[str]:
        """The groups with a row that ``--benchmark-compare-fail`` would report and that more rounds may clear."""
        checks = [check for check in self.suite.compare_fail or () if check.field in ("min", "mean", "median")]
        return sorted(
            {
                bench.group
                for bench in self.suite.benchmarks
                for known in self.suite.compared_mapping.values()
                for check in checks
                if _case_of(bench) is not None
                and bench.fullname in known
                and check.fails(bench, known[bench.fullname]["stats"])
            }
        )

    def add_shares(self) -> None:
        """Add the shares of the machine's limits, which are measured here if they have not been."""
        try:
            for bench in self.suite.benchmarks:
                if _case_of(bench) is not None:
                    bench.extra_info.update(self.session.shares(bench.extra_info, bench.stats.median))
        except Exception as error:  # any: what was measured before must not be lost
            self._say(f"shares of the machine's limits are missing: {failed(error)}")

    def _time_again(self, rows: list[Case]) -> None:
        """Add rounds to rows of one group; a failure leaves them as they are."""
        try:
            measured = self.session.again(rows)
        except Exception as error:  # any: what was measured before must not be lost
            self._say(f"{rows[0].group} could not be timed once more: {failed(error)}")
            return
        for bench in self.suite.benchmarks:
            case = _case_of(bench)
            if case is not None and case in measured:
                _replace_stats(bench, measured[case].seconds)
                bench.extra_info.update(measured[case].info, visits=measured[case].visits)

    def _say(self, line: str) -> None:
        if self.terminal is not None:
            self.terminal.write(f"\n{line}\n")


def _case_of(bench: Any) -> Case | None:
    """The case of a row with times; None for any other benchmark."""
    found = (bench.params or {}).get("case") if bench else None
    return found if isinstance(found, Case) else None


def _replace_stats(bench: Any, seconds: list[float]) -> None:
    bench.stats = type(bench.stats)()  # its figures are kept once computed
    for each in seconds:
        bench.update(each)
