"""Times the providers of a group in turn, so that a disturbance of the machine meets all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch

from .comparison import Call, Setup
from .memory import extra_peak

SLOW = 4.0  # seconds: a longer call is timed once
LONG = 1.0  # seconds: in a longer call little of the time is warm-up
LEAST = 0.004  # seconds: shorter calls are timed together
MOST_CALLS = 1000  # in a round
LEAST_ROUNDS, MOST_ROUNDS = 3, 12
ROTATED = 4  # inputs of a CUDA graph's replays: one alone would stay in the cache


@dataclass
class Timed:
    """The seconds of one call in each round, and what else was measured."""

    setup: Setup
    threads: int
    seconds: list[float] = field(default_factory=list)
    calls: int = 1  # of a round
    done: int = 0  # calls so far
    expected: float = 0.0  # seconds of a call
    extra_mib: float | None = None


@dataclass(frozen=True)
class Clock:
    """Runs a number of calls and returns their seconds; on CUDA a graph's replays between events."""

    device: torch.device
    graph: bool = False

    def prepared(self, call: Call) -> Callable[[int, int], float]:
        """A function of (first call, number of calls) that returns the seconds of all of them."""
        if self.device.type == "cuda":
            return partial(_between_events, _graphs(call) if self.graph else call)
        return partial(_by_the_clock, call)


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


def _graphs(call: Call) -> Call:
    """The call as CUDA graphs, one for each of the rotated inputs: their times hold no launches from Python."""
    graphs = []
    for number in range(ROTATED):
        call(number)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call(number)
        graphs.append(graph)
    return lambda number: graphs[number % ROTATED].replay()


def interleaved(timed: Sequence[Timed], clock: Clock, seconds: float, warm: Sequence[bool], rounds: int | None) -> None:
    """Fill in the times of every entry.

    Args:
        seconds: about so long for all rounds, which are at least three; a call beyond four seconds is timed once.
        warm: for each entry, whether its first call may be timed.
        rounds: exactly so many calls each, without others before them.
    """
    order = sorted(range(len(timed)), key=lambda at: timed[at].threads)
    runs = [clock.prepared(entry.setup.call) for entry in timed]
    if rounds is None:
        for at in order:
            _first_calls(timed[at], runs[at], clock.device, warm[at])
        quick = [at for at in order if not timed[at].seconds]
        rounds = _rounds([timed[at] for at in quick], seconds)
    else:
        quick = order
    for _ in range(rounds):
        for at in quick:
            _round(timed[at], runs[at])


def _first_calls(entry: Timed, run: Callable[[int, int], float], device: torch.device, warm: bool) -> None:
    """Warm up, measure the memory and choose the calls of a round; a slow call is the only round."""
    torch.set_num_threads(entry.threads)
    _one_call(entry, run, device)
    if not warm and not LONG < entry.expected <= SLOW:
        _one_call(entry, run, device)
    if entry.expected > SLOW:
        entry.seconds.append(entry.expected / entry.setup.units)
    elif entry.expected < LEAST:
        entry.expected = min(entry.expected, run(entry.done, 1))
        entry.done += 1
        entry.calls = min(MOST_CALLS, max(1, round(LEAST / max(entry.expected, 1e-7))))


def _one_call(entry: Timed, run: Callable[[int, int], float], device: torch.device) -> None:
    entry.expected, entry.extra_mib = extra_peak(lambda: run(entry.done, 1), device)
    if device.type == "cuda":  # the memory of a graph was taken when it was captured
        entry.extra_mib = extra_peak(lambda: entry.setup.call(entry.done), device)[1]
    entry.done += 1


def _rounds(entries: Sequence[Timed], seconds: float) -> int:
    once = sum(entry.expected * entry.calls for entry in entries)
    return max(LEAST_ROUNDS, min(MOST_ROUNDS, round(seconds / once))) if once else 0


def _round(entry: Timed, run: Callable[[int, int], float]) -> None:
    if torch.get_num_threads() != entry.threads:
        torch.set_num_threads(entry.threads)
    took = run(entry.done, entry.calls)
    entry.done += entry.calls
    entry.seconds.append(took / entry.calls / entry.setup.units)
