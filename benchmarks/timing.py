"""Times the providers of a group in turn, so that a disturbance of the machine meets all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch

from .comparison import Call, Setup
from .memory import extra_peak
from .peers import one_line

SLOW = 3.0  # seconds: a longer call is timed once, unless the comparison says another limit
LONG = 1.0  # seconds: in a longer call little of the time is warm-up
LEAST = 0.004  # seconds: shorter calls are timed together
MOST_CALLS = 1000  # in a round
LEAST_ROUNDS, MOST_ROUNDS = 3, 12
ROTATED = 4  # inputs of a CUDA graph's replays: one alone would stay in the cache


Run = Callable[[int, int], float]
"""Makes calls, given the number of the first and how many, and returns their seconds."""


@dataclass
class Timed:
    """The seconds of one call in each round, and what else was measured.

    ``warm``: its first call may be timed where it is long. ``peer``: it may fail.
    """

    setup: Setup
    threads: int
    warm: bool = False
    peer: bool = False
    seconds: list[float] = field(default_factory=list)
    calls: int = 1  # of a round
    done: int = 0  # calls so far
    expected: float = 0.0  # seconds of a call
    extra_mib: float | None = None
    replayed: bool = False  # as CUDA graphs
    failure: str = ""
    run: Run = field(init=False, repr=False)


@dataclass(frozen=True)
class Clock:
    """Runs a number of calls and returns their seconds; on CUDA between events, and a graph's replays if asked for."""

    device: torch.device
    graph: bool = False
    slow: float = SLOW

    def prepare(self, entry: Timed) -> Run:
        if self.device.type != "cuda":
            return partial(_by_the_clock, entry.setup.call)
        graphs = _graphs(entry.setup.call) if self.graph else None
        entry.replayed = graphs is not None
        return partial(_between_events, graphs or entry.setup.call)


def _by_the_clock(call: Call, first: int, count: int) -> float:
    start = time.perf_counter()
    for number in range(first, first + count):
        call(number)
    return time.perf_counter() - start


def _between_events(call: Call, first: int, count: int) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    for number in range(first, first + count):
        call(number)
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3


def _graphs(call: Call) -> Call | None:
    """The call as CUDA graphs, one for each of the rotated inputs: their times hold no launches from Python.

    None for a call that cannot be captured, as it waits for the device.
    """
    beside, graphs = torch.cuda.Stream(), []
    for number in range(ROTATED):
        with torch.cuda.stream(beside):  # as PyTorch asks for before a capture
            call(number)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=beside):
                call(number)
        except RuntimeError:
            torch.cuda.synchronize()
            return None
        graphs.append(graph)
    return lambda number: graphs[number % ROTATED].replay()


def interleaved(timed: Sequence[Timed], clock: Clock, seconds: float, rounds: int | None) -> None:
    """Fill in the times of every entry, or its failure.

    Args:
        seconds: about so long for all rounds, which are at least three; a call beyond ``clock.slow`` is timed once.
        rounds: exactly so many calls each, without others before them.
    """
    order = sorted(timed, key=lambda entry: entry.threads)
    for entry in order:
        _unless_it_fails(entry, partial(_prepare, clock=clock, with_calls=rounds is None))
    quick = [entry for entry in order if not entry.seconds and not entry.failure]
    for entry in quick if rounds is None else ():
        if entry.expected <= LONG:  # takes back the memory that the first calls have returned to the system
            _unless_it_fails(entry, _round)
            entry.seconds.clear()
    for _ in range(_rounds(quick, seconds) if rounds is None else rounds):
        for entry in quick:
            if not entry.failure:
                _unless_it_fails(entry, _round)


def _unless_it_fails(entry: Timed, step: Callable[[Timed], None]) -> None:
    """A peer may fail in any way, which must not lose the other rows."""
    try:
        step(entry)
    except Exception as error:  # whatever a peer raises
        if not entry.peer:
            raise
        entry.failure = failed(error)


def _prepare(entry: Timed, clock: Clock, with_calls: bool) -> None:
    torch.set_num_threads(entry.threads)
    entry.run = clock.prepare(entry)
    if with_calls:
        _first_calls(entry, clock)


def failed(error: Exception) -> str:
    """What the row of a peer says that failed."""
    return f"it failed: {' '.join(dict.fromkeys([type(error).__name__, one_line(error)]))}"


def _first_calls(entry: Timed, clock: Clock) -> None:
    """Warm up, measure the memory and choose the calls of a round; a slow call is the only round."""
    _one_call(entry, clock.device)
    if not entry.warm or entry.expected <= LONG:  # what compiled for seconds may be quick
        _one_call(entry, clock.device)
    if entry.expected > clock.slow:
        entry.seconds.append(entry.expected / entry.setup.units)
    elif entry.expected < LEAST:
        entry.expected = min(entry.expected, entry.run(entry.done, 1))
        entry.done += 1
        entry.calls = min(MOST_CALLS, max(1, round(LEAST / max(entry.expected, 1e-7))))


def _one_call(entry: Timed, device: torch.device) -> None:
    entry.expected, entry.extra_mib = extra_peak(lambda: entry.run(entry.done, 1), device)
    if entry.replayed:  # the memory of a graph was taken when it was captured
        entry.extra_mib = extra_peak(lambda: entry.setup.call(entry.done), device)[1]
    entry.done += 1


def _rounds(entries: Sequence[Timed], seconds: float) -> int:
    once = sum(entry.expected * entry.calls for entry in entries)
    return max(LEAST_ROUNDS, min(MOST_ROUNDS, round(seconds / once))) if once else 0


def _round(entry: Timed) -> None:
    if torch.get_num_threads() != entry.threads:
        torch.set_num_threads(entry.threads)
    took = entry.run(entry.done, entry.calls)
    entry.done += entry.calls
    entry.seconds.append(took / entry.calls / entry.setup.units)
