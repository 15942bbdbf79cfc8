"""Trains cells, several at once, until all are done or the time is up. Each is a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.machine import processor
from fastproto.support.atomic_files import write_whole
from fastproto.support.exit_codes import ended_by
from lib.repository import ROOT
from lib.reproduce.cells import Cell, Place
from lib.reproduce.recipes import Machine, arguments_of, has_begun, missing, trained_by
from lib.reproduce.records import write_record
from lib.reproduce.run_folders import record_of, rows_of, test_row

START = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from lib.repository import use_repository
use_repository()
from lib.reproduce.worker import main
sys.exit(main(sys.argv[1:]))
"""
LOOK_EVERY = 0.1  # seconds
PATIENCE = 30.0  # seconds for a run to end after SIGTERM


@dataclass
class Outcome:
    """What became of the cells."""

    done: list[Cell] = field(default_factory=list)
    failed: list[Cell] = field(default_factory=list)
    left: list[Cell] = field(default_factory=list)  # time was up, or a signal came
    signal: int | None = None

    @property
    def exit_code(self) -> int:
        return ended_by(self.signal) if self.signal is not None else int(bool(self.failed))


@dataclass
class Schedule:
    """Cells that wait and cells that are trained.

    Args:
        jobs: how many at once.
        seconds: after which none begins and those that are trained are stopped; None: no limit.
        say: takes a line for each cell that ends.
    """

    place: Place
    machine: Machine
    jobs: int = 1
    seconds: float | None = None
    say: Callable[[str], None] = print
    outcome: Outcome = field(default_factory=Outcome)
    waiting: list[Cell] = field(default_factory=list)
    running: dict[Cell, subprocess.Popen[bytes]] = field(default_factory=dict)

    def run(self, cells: list[Cell]) -> Outcome:
        """Train every cell without a record; those that others begin from come first."""
        asked = [cell for cell in cells if not self.place.record(cell).is_file()]
        self.waiting = [cell for cell in in_order(asked) if cell in asked or not self._ended(cell)]
        self._leave_out()
        until = None if self.seconds is None else time.monotonic() + self.seconds
        with _signals(self.outcome):
            try:
                while self.waiting or self.running:
                    if self.outcome.signal is not None or (until is not None and time.monotonic() >= until):
                        break
                    self._begin()
                    self._collect()
                    time.sleep(LOOK_EVERY if self.running else 0)
            finally:
                self._stop()
        return self.outcome

    def _leave_out(self) -> None:
        """Say once what cells need that has not been given, before anything begins."""
        lacking: dict[str, list[Cell]] = {}
        for cell in self.waiting:
            reason = missing(cell, self.machine)
            if reason is not None and not has_begun(self.place.run(cell)):
                lacking.setdefault(reason, []).append(cell)
        for reason, cells in lacking.items():
            more = f" and {len(cells) - 1} more" if len(cells) > 1 else ""
            self.say(f"not run: {cells[0].table} {cells[0].name}{more}: {reason}")
            self.outcome.failed += cells
        self.waiting = [cell for cell in self.waiting if cell not in self.outcome.failed]

    def _begin(self) -> None:
        """Begin what there is room for."""
        for cell in list(self.waiting):
            first = trained_by(cell)
            if len(self.running) >= self.jobs:
                return
            if first in self.waiting or first in self.running:
                continue
            self.waiting.remove(cell)
            if self._keep(cell):
                continue
            if first is not None and not self._ended(first):
                self._fail(cell, f"it begins from the run of {first.name}, which is not in {self.place.run(first)}")
                continue
            self.place.run(cell).parent.mkdir(parents=True, exist_ok=True)
            self.running[cell] = self._start(cell)

    def _ended(self, cell: Cell) -> bool:
        return test_row(rows_of(self.place.run(cell))) is not None

    def _start(self, cell: Cell) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", START, str(ROOT / "scripts"), *arguments_of(cell, self.place, self.machine)]
        facts = json.dumps({"cpu": processor(), "threads": self._threads(), "jobs": self.jobs})
        write_whole(self.place.machine(cell), lambda file: file.write_text(facts + "\n", encoding="utf-8"))
        with self.place.log(cell).open("ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=self._environment(), start_new_session=True
            )

    def _environment(self) -> dict[str, str]:
        """Several runs share the cores, unless the caller has set the number of threads."""
        threads = {"OMP_NUM_THREADS": str(max(_cores() // self.jobs, 1))} if self.jobs > 1 else {}
        return {**threads, **os.environ}

    def _threads(self) -> int:
        """Threads of PyTorch in a run."""
        import torch

        given = self._environment().get("OMP_NUM_THREADS", "")
        return int(given) if given.isdecimal() and int(given) > 0 else torch.get_num_threads()

    def _collect(self) -> None:
        for cell, process in list(self.running.items()):
            code = process.poll()
            if code is None:
                continue
            self._drop(cell)
            if code != 0:
                self._fail(cell, _last_words(self.place.log(cell), code))
            elif not self._keep(cell):
                self._fail(cell, f"its run folder {self.place.run(cell)} holds no test")

    def _keep(self, cell: Cell) -> bool:
        """Write the record of a run that has ended, now or when an earlier call was killed."""
        record = record_of(cell, self.place.run(cell), self.place.machine(cell))
        if record is None:
            return False
        write_record(self.place.record(cell), record)
        self.outcome.done.append(cell)
        reached = f"validation {100 * record['validation']:.2f} %, test {100 * record['test']:.2f} %"
        self.say(f"done: {cell.table} {cell.name}: {reached}, {record['seconds_per_epoch']:.1f} s an epoch")
        return True

    def _fail(self, cell: Cell, reason: str) -> None:
        self.outcome.failed.append(cell)
        self.say(f"failed: {cell.table} {cell.name}: {reason}")

    def _drop(self, cell: Cell) -> None:
        stdin = self.running.pop(cell).stdin
        assert stdin is not None
        stdin.close()

    def _stop(self) -> None:
        """Stop what is trained: each goes on from its last checkpoint the next time."""
        for process in self.running.values():
            process.terminate()
        for cell, process in list(self.running.items()):
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            self._drop(cell)
            if not self._keep(cell):
                self.outcome.left.append(cell)
        self.outcome.left += self.waiting


def in_order(cells: list[Cell]) -> list[Cell]:
    """Each cell once, after the one whose run it begins from."""
    ordered: dict[Cell, None] = {}
    for cell in cells:
        first = trained_by(cell)
        ordered |= dict.fromkeys([cell] if first is None else [first, cell])
    return list(ordered)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _last_words(log: Path, code: int) -> str:
    """The sentence that a run has ended with."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    if code < 0 or not lines:
        return f"its process ended with code {code}; see {log}"
    return lines[-1].removeprefix("error: ")


@contextmanager
def _signals(outcome: Outcome) -> Iterator[None]:
    """SIGINT and SIGTERM stop the cells first."""

    def note(number: int, frame: object) -> None:
        outcome.signal = number

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
