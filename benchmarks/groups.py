"""Measures a group: sets its providers up on the same inputs, times them in turn, and adds what a report needs."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import torch

from .ceilings import CEILINGS, COPY, name_of_product
from .comparison import OURS, Case, Comparison, Record, Scale, Setup, Unavailable, Work, cases, reason_not_to_run
from .timing import MOST_ROUNDS, SLOW, Clock, Timed, failed, interleaved

SECONDS: dict[Scale, float] = {"smoke": 0.3, "small": 1.5, "full": 10.0}
"""Time for the rounds of a group."""
FURTHER = 40.0  # times SECONDS: for all second visits together, and for all visits that a comparison asks for
SHORT = 0.1  # seconds of a round


@dataclass(frozen=True)
class Measured:
    """The seconds of a call in each round, and the facts beside them.

    ``round_seconds``: how long a round of its calls takes. ``visits``: the rounds of each visit to its group.
    """

    seconds: list[float]
    info: Record
    round_seconds: float
    visits: list[int]

    def followed_by(self, other: Measured, visit: int, calls_differ: bool) -> Measured:
        """With the rounds of a later visit; of calls that differ each the faster of both."""
        if calls_differ:
            return replace(other, seconds=list(map(min, self.seconds, other.seconds)), visits=self.visits)
        visits = [*self.visits, *[0] * (visit - len(self.visits)), len(other.seconds)]
        return replace(other, seconds=self.seconds + other.seconds, visits=visits)


@dataclass
class Group:
    """The rows of a group that has been visited, and the seconds in which its providers were built."""

    rows: dict[str, Measured | str]
    building: float
    visits: int = 1


@dataclass
class Session:
    """The options of a run and what it has measured so far; ``load``: of the machine before it."""

    scale: Scale
    threads: tuple[int, ...]
    device: torch.device
    load: float | None = None
    groups: dict[str, Group | Exception] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)  # that each group took, with all that is not timed
    absent: list[Record] = field(default_factory=list)

    def result(self, case: Case, wanted: Sequence[Case]) -> Measured | str:
        """The measurement of a row, or why there is none; times all rows of its group that are wanted, once."""
        found = self._measured(case, wanted)
        if isinstance(found, str):
            self.absent.append(described(case) | {"reason": found})
        return found

    def _measured(self, case: Case, wanted: Sequence[Case]) -> Measured | str:
        if case.group not in self.groups:
            group = [each for each in wanted if each.group == case.group]
            start = time.perf_counter()
            try:
                self.groups[case.group] = measure(group, self.scale, self.device)
            except Exception as error:  # any, of ours: its rows fail alike, without another try each
                self.groups[case.group] = error
            self.seconds[case.group] = time.perf_counter() - start
        found = self.groups[case.group]
        if isinstance(found, Exception):
            raise found
        return found.rows[str(case)]

    def again(self, rows: Sequence[Case]) -> dict[Case, Measured]:
        """Time rows of one group once more; returns those that succeeded, with the rounds of all visits."""
        group, start = self.groups[rows[0].group], time.perf_counter()
        assert isinstance(group, Group), "only what was measured is measured again"
        later = measure(rows, self.scale, self.device).rows
        calls_differ, found = rows[0].comparison.rounds is not None, {}
        for case in rows:
            before, now = group.rows[str(case)], later[str(case)]
            if isinstance(before, Measured) and isinstance(now, Measured):
                found[case] = before.followed_by(now, group.visits, calls_differ)
        group.rows.update({str(case): row for case, row in found.items()})
        group.visits += 1
        self.seconds[rows[0].group] += time.perf_counter() - start
        return found

    def second_visits(self, wanted: Sequence[Case]) -> list[list[Case]]:
        """The short rows of as many groups as there is time for, in the order of the first visits."""
        found: dict[str, tuple[float, list[Case]]] = {}
        for name, group in self.groups.items():
            own = [case for case in wanted if case.group == name and not case.comparison.rounds]
            if isinstance(group, Group) and (short := short_rows(own, group)):
                rounds = sum(short.values())
                cost = group.building + 3 * rounds + min(SECONDS[self.scale], MOST_ROUNDS * rounds)
                found[name] = cost, list(short)
        left, chosen = FURTHER * SECONDS[self.scale], set()
        for name in sorted(found, key=lambda name: found[name][0]):
            left -= found[name][0]
            if left >= 0:
                chosen.add(name)
        return [rows for name, (_, rows) in found.items() if name in chosen]

    def shares(self, info: Record, seconds: float) -> Record:
        """The shares of the machine's limits that a call of so many seconds reaches."""
        ceilings = {} if info["op"] == CEILINGS.op else self.ceilings(info["threads"])
        product, copy = ceilings.get(name_of_product(info["precision"])), ceilings.get(COPY)
        found = {}
        if info["flops"] and product:
            found["share_of_product"] = info["flops"] / seconds / product
        if info["bytes"] and copy:
            found["share_of_copy"] = info["bytes"] / seconds / copy
        return found

    def ceilings(self, threads: int) -> dict[str, float]:
        """Operations per second of products by precision, and bytes per second of a copy, of the fastest rounds."""
        wanted = cases(CEILINGS, self.scale, self.threads, self.device.type)
        threads = threads if self.device.type == "cpu" else self.threads[0]
        rows = {each.provider: self._measured(each, wanted) for each in wanted if each.threads == threads}
        found = {name: each for name, each in rows.items() if isinstance(each, Measured)}
        work = {name: each.info["bytes" if name == COPY else "flops"] for name, each in found.items()}
        return {name: work[name] / min(each.seconds) for name, each in found.items()}


def short_rows(own: Sequence[Case], group: Group) -> dict[Case, float]:
    """The seconds of a round of the rows whose rounds are short and that compile nothing."""
    found = {case: row for case in own if isinstance(row := group.rows.get(str(case)), Measured)}
    return {
        case: row.round_seconds
        for case, row in found.items()
        if row.round_seconds <= SHORT and not case.comparison.providers[case.provider].compiles
    }


def described(case: Case) -> Record:
    known = {"op": case.comparison.op, "size": case.size, "provider": case.provider}
    return known | {"threads": case.threads}


def measure(group: Sequence[Case], scale: Scale, device: torch.device) -> Group:
    """Time rows of one group."""
    gc.collect()
    gc.freeze()  # the collections before each call then leave out what was imported, which takes 0.2 s each
    before, start = torch.get_num_threads(), time.perf_counter()
    comparison = group[0].comparison
    try:
        inputs = comparison.inputs(group[0].size, device)
        built = {case: prepared(case, inputs, scale, device) for case in group}
        building = time.perf_counter() - start
        entries = {case: each for case, each in built.items() if isinstance(each, Timed)}
        rounds = comparison.rounds(inputs) if comparison.rounds else None
        interleaved(list(entries.values()), _clock(comparison, device), SECONDS[scale], rounds)
        return Group({str(case): _outcome(case, each, scale, device) for case, each in built.items()}, building)
    finally:
        torch.set_num_threads(before)


def _clock(comparison: Comparison, device: torch.device) -> Clock:
    return Clock(device, comparison.graph, SLOW if comparison.slow is None else comparison.slow)


def prepared(case: Case, inputs: Any, scale: Scale, device: torch.device) -> Timed | str:
    """The provider of a row, built with its threads, or why there is none."""
    if reason := reason_not_to_run(case, scale, device.type):
        return reason
    provider = case.comparison.providers[case.provider]
    peer = scale != "smoke" and not case.provider.startswith(OURS)  # smoke is a test: there every failure is one
    torch.set_num_threads(case.threads)
    try:
        built = provider.build(inputs)
    except Unavailable as why:
        return str(why)
    except Exception as error:  # a peer may fail in any way, which must not lose the other rows
        if not peer:
            raise
        return failed(error)
    return Timed(built if isinstance(built, Setup) else Setup(built), case.threads, provider.warm, peer)


def _outcome(case: Case, entry: Timed | str, scale: Scale, device: torch.device) -> Measured | str:
    if isinstance(entry, str) or entry.failure:
        return entry if isinstance(entry, str) else entry.failure
    torch.set_num_threads(case.threads)
    round_seconds = median(entry.seconds) * entry.calls * entry.setup.units
    return Measured(entry.seconds, facts(case, entry, scale, device), round_seconds, [len(entry.seconds)])


def called_once(case: Case, scale: Scale, device: torch.device) -> str | None:
    """Call the provider of a row once, without a time; returns why that cannot be done."""
    before = torch.get_num_threads()
    try:
        found = prepared(case, case.comparison.inputs(case.size, device), scale, device)
        if isinstance(found, str):
            return found
        found.setup.call(0)
        return None
    finally:
        torch.set_num_threads(before)


def facts(case: Case, entry: Timed, scale: Scale, device: torch.device) -> Record:
    """What is reported beside the times of a row."""
    comparison = case.comparison
    work = entry.setup.work or (comparison.work(case.size) if comparison.work else Work())
    info = described(case) | {"device": device.type, "scale": scale, "calls_per_round": entry.calls}
    info |= {"extra_mib": entry.extra_mib, "flops": work.flops, "bytes": work.bytes, "precision": work.precision}
    if device.type == "cuda":
        info["cuda_graph"] = entry.replayed
    if case.provider.startswith(OURS):
        info["serial_part"] = entry.setup.serial_part or comparison.serial_part
    return info | entry.setup.facts()
