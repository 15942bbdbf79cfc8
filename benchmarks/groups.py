"""Measures a group: sets its providers up on the same inputs, times them in turn, and adds what a report needs."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch

from .ceilings import CEILINGS, COPY, name_of_product
from .comparison import OURS, Case, Comparison, Record, Scale, Setup, Unavailable, Work, cases, reason_not_to_run
from .timing import SLOW, Clock, Timed, failed, interleaved

SECONDS: dict[Scale, float] = {"smoke": 0.3, "small": 1.5, "full": 10.0}
"""Time for the rounds of a group."""
SECOND_VISITS = 40  # times that, for all groups together: a second moment shows how much the machine itself varies
QUICK = 0.1  # seconds of a round


@dataclass(frozen=True)
class Measured:
    """The seconds of a call in each round, and the facts beside them."""

    seconds: list[float]
    info: Record


@dataclass
class Session:
    """The options of a run and what it has measured so far."""

    scale: Scale
    threads: tuple[int, ...]
    device: torch.device
    groups: dict[str, dict[str, Measured | str] | Exception] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)  # that each group took, with all that is not timed
    absent: list[Record] = field(default_factory=list)

    def result(self, case: Case, wanted: Sequence[Case]) -> Measured | str:
        """The measurement of a row, or why there is none; times all rows of its group that are wanted, once."""
        found = self._measured(case, wanted)
        if isinstance(found, str):
            self.absent.append(described(case) | {"reason": found})
        return found

    def again(self, group: Sequence[Case]) -> dict[Case, Measured]:
        """Time rows of one group once more; returns those with times: with the rounds of before, and now."""
        before, start = self.groups[group[0].group], time.perf_counter()
        assert not isinstance(before, Exception), "only what was measured is measured again"
        found = measure(group, self.scale, self.device, self._ceilings_beside(group[0]), before)
        rows = {case: row for case in group if isinstance(row := found[str(case)], Measured)}
        self.groups[group[0].group] = {**before, **{str(case): row for case, row in rows.items()}}
        self.seconds[group[0].group] += time.perf_counter() - start
        return rows

    def quick(self, wanted: Sequence[Case]) -> Iterator[list[Case]]:
        """The quick rows of each group, the least costly group first, until they have taken the time for them."""
        until = time.perf_counter() + SECOND_VISITS * SECONDS[self.scale]
        for group, took in sorted(self.seconds.items(), key=lambda item: item[1]):
            if time.perf_counter() + took > until:
                return
            measured = self.groups[group]
            rows = {} if isinstance(measured, Exception) else measured
            cases = [case for case in wanted if case.group == group and is_quick(case, rows.get(str(case)))]
            if cases:
                yield cases

    def _measured(self, case: Case, wanted: Sequence[Case]) -> Measured | str:
        if case.group not in self.groups:
            ceilings = self._ceilings_beside(case)
            group = [each for each in wanted if each.group == case.group]
            start = time.perf_counter()
            try:
                self.groups[case.group] = measure(group, self.scale, self.device, ceilings, {})
            except Exception as error:  # any, of ours: its rows fail alike, without another try each
                self.groups[case.group] = error
            self.seconds[case.group] = time.perf_counter() - start
        found = self.groups[case.group]
        if isinstance(found, Exception):
            raise found
        return found[str(case)]

    def _ceilings_beside(self, case: Case) -> dict[int, dict[str, float]]:
        return {} if case.comparison is CEILINGS else {n: self.ceilings(n) for n in self.threads}

    def ceilings(self, threads: int) -> dict[str, float]:
        """Operations per second of products by precision, and bytes per second of a copy."""
        wanted = cases(CEILINGS, self.scale, self.threads, self.device.type)
        threads = threads if self.device.type == "cpu" else self.threads[0]
        rows = {each.provider: self._measured(each, wanted) for each in wanted if each.threads == threads}
        found = {name: each for name, each in rows.items() if isinstance(each, Measured)}
        work = {name: each.info["bytes" if name == COPY else "flops"] for name, each in found.items()}
        return {name: work[name] / median(each.seconds) for name, each in found.items()}


def is_quick(case: Case, row: Measured | str | None) -> bool:
    """Whether a row is timed at a second moment: a round is short, nothing is compiled, and its calls are alike."""
    if not isinstance(row, Measured) or case.comparison.rounds or case.comparison.providers[case.provider].compiles:
        return False
    return bool(median(row.seconds) * row.info["calls_per_round"] <= QUICK)


def joined(first: list[float], second: list[float], calls_differ: bool) -> list[float]:
    """The rounds of two moments; of calls that differ the faster of both."""
    return list(map(min, first, second)) if calls_differ else first + second


def described(case: Case) -> Record:
    known = {"op": case.comparison.op, "size": case.size, "provider": case.provider}
    return known | {"threads": case.threads}


def measure(
    group: Sequence[Case],
    scale: Scale,
    device: torch.device,
    ceilings: Mapping[int, Mapping[str, float]],
    earlier: Mapping[str, Measured | str],
) -> dict[str, Measured | str]:
    """Time the rows of one group; the rounds follow those of ``earlier``."""
    gc.collect()
    gc.freeze()  # the collections before each call then leave out what was imported, which takes 0.2 s each
    before = torch.get_num_threads()
    comparison = group[0].comparison
    try:
        inputs = comparison.inputs(group[0].size, device)
        built = {case: prepared(case, inputs, scale, device) for case in group}
        entries = {case: each for case, each in built.items() if isinstance(each, Timed)}
        rounds = comparison.rounds(inputs) if comparison.rounds else None
        interleaved(list(entries.values()), _clock(comparison, device), SECONDS[scale], rounds)
        for case, entry in entries.items():
            first = earlier.get(str(case))
            if isinstance(first, Measured) and not entry.failure:
                entry.seconds = joined(first.seconds, entry.seconds, rounds is not None)
        return {str(case): _outcome(case, each, scale, device, ceilings) for case, each in built.items()}
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


def _outcome(
    case: Case, entry: Timed | str, scale: Scale, device: torch.device, ceilings: Mapping[int, Mapping[str, float]]
) -> Measured | str:
    if isinstance(entry, str) or entry.failure:
        return entry if isinstance(entry, str) else entry.failure
    torch.set_num_threads(case.threads)
    return Measured(entry.seconds, facts(case, entry, scale, device, ceilings.get(case.threads, {})))


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


def facts(case: Case, entry: Timed, scale: Scale, device: torch.device, ceilings: Mapping[str, float]) -> Record:
    """What is reported beside the times of a row."""
    comparison = case.comparison
    work = entry.setup.work or (comparison.work(case.size) if comparison.work else Work())
    seconds = median(entry.seconds)
    info = described(case) | {"device": device.type, "scale": scale, "calls_per_round": entry.calls}
    info |= {"extra_mib": entry.extra_mib, "flops": work.flops, "bytes": work.bytes, "precision": work.precision}
    product, copy = ceilings.get(name_of_product(work.precision)), ceilings.get(COPY)
    if work.flops and product:
        info["share_of_product"] = work.flops / seconds / product
    if work.bytes and copy:
        info["share_of_copy"] = work.bytes / seconds / copy
    if device.type == "cuda":
        info["cuda_graph"] = entry.replayed
    if case.provider.startswith(OURS):
        info["serial_part"] = entry.setup.serial_part or comparison.serial_part
    return info | entry.setup.facts()
