"""Measures a group: sets its providers up on the same inputs, times them in turn, and adds what a report needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import torch

from .ceilings import CEILINGS, COPY, name_of_product
from .comparison import OURS, Case, Record, Scale, Setup, Unavailable, Work, cases, reason_not_to_run
from .timing import Clock, Timed, interleaved

SECONDS: dict[Scale, float] = {"smoke": 0.3, "small": 1.5, "full": 10.0}
"""Time for the rounds of a group."""


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
    groups: dict[str, dict[str, Measured | str]] = field(default_factory=dict)
    absent: list[Record] = field(default_factory=list)

    def result(self, case: Case, wanted: Sequence[Case]) -> Measured | str:
        """The measurement of a row, or why there is none; times all rows of its group that are wanted, once."""
        found = self._measured(case, wanted)
        if isinstance(found, str):
            self.absent.append(described(case) | {"reason": found})
        return found

    def _measured(self, case: Case, wanted: Sequence[Case]) -> Measured | str:
        if case.group not in self.groups:
            ceilings = {} if case.comparison is CEILINGS else {n: self.ceilings(n) for n in self.threads}
            group = [each for each in wanted if each.group == case.group]
            self.groups[case.group] = measure(group, self.scale, self.device, ceilings)
        return self.groups[case.group][str(case)]

    def ceilings(self, threads: int) -> dict[str, float]:
        """Operations per second of products by precision, and bytes per second of a copy."""
        wanted = cases(CEILINGS, self.scale, self.threads, self.device.type)
        threads = threads if self.device.type == "cpu" else self.threads[0]
        rows = {each.provider: self._measured(each, wanted) for each in wanted if each.threads == threads}
        found = {name: each for name, each in rows.items() if isinstance(each, Measured)}
        work = {name: each.info["bytes" if name == COPY else "flops"] for name, each in found.items()}
        return {name: work[name] / median(each.seconds) for name, each in found.items()}


def described(case: Case) -> Record:
    known = {"op": case.comparison.op, "size": case.size, "provider": case.provider}
    return known | {"threads": case.threads}


def measure(
    group: Sequence[Case], scale: Scale, device: torch.device, ceilings: Mapping[int, Mapping[str, float]]
) -> dict[str, Measured | str]:
    """Time the rows of one group."""
    before = torch.get_num_threads()
    comparison, size = group[0].comparison, group[0].size
    inputs = comparison.inputs(size, device)
    entries: dict[Case, Timed] = {}
    found: dict[str, Measured | str] = {}
    for case in group:
        reason = reason_not_to_run(case, scale, device.type)
        try:
            if reason is not None:
                raise Unavailable(reason)
            torch.set_num_threads(case.threads)
            built = comparison.providers[case.provider].build(inputs)
            entries[case] = Timed(built if isinstance(built, Setup) else Setup(built), case.threads)
        except Unavailable as why:
            found[str(case)] = str(why)
    warm = [comparison.providers[case.provider].warm for case in entries]
    clock = Clock(device, comparison.graph)
    rounds = comparison.rounds(inputs) if comparison.rounds else None
    interleaved(list(entries.values()), clock, SECONDS[scale], warm, rounds)
    for case, entry in entries.items():
        torch.set_num_threads(case.threads)
        found[str(case)] = Measured(entry.seconds, facts(case, entry, scale, device, ceilings.get(case.threads, {})))
    torch.set_num_threads(before)
    return found


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
    if comparison.serial_part and case.provider.startswith(OURS):
        info["serial_part"] = comparison.serial_part
    return info | entry.setup.facts()
