"""What a benchmark states: an op, its sizes, the providers that compute it, and the work of one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

import torch

Scale = Literal["smoke", "small", "full"]
SCALES: tuple[Scale, ...] = ("smoke", "small", "full")
Size: TypeAlias = dict[str, Any]
"""The letters of a size and their values, such as ``{"C": 1000, "D": 64}``."""
Call = Callable[[int], object]
"""One call of a provider; it is given the number of the call, by which inputs rotate."""
Record = dict[str, Any]
"""A JSON object."""
OURS = "fastproto"
NO_LIMIT = 10**12
COMPARED = "fastproto_comparison"  # attribute of a test


class Unavailable(Exception):
    """A provider that cannot run here; its message is the row of the report, such as ``not installed``."""


@dataclass(frozen=True)
class Work:
    """The operations and bytes that one call needs at least, and the precision of its products."""

    flops: float = 0.0
    bytes: float = 0.0
    precision: str = "float32"


@dataclass(frozen=True)
class Setup:
    """What building a provider gives: the call, and what only some providers need.

    ``work`` replaces that of the comparison; ``units`` divides the time of a call; ``facts`` is called once after
    the timing, and its entries are reported; ``serial_part`` replaces that of the comparison.
    """

    call: Call
    work: Work | None = None
    units: float = 1.0
    facts: Callable[[], Record] = dict
    serial_part: str = ""


@dataclass(frozen=True)
class Provider:
    """One implementation. ``build`` takes the inputs of a size.

    Args:
        small: the largest C at which it runs below ``--scale full``: above, a call takes too long.
        compiles: for seconds, again for each size: left out of ``--scale smoke``, and timed in one thread.
        serial: it uses one thread only, and is timed once.
        warm: it compiles nothing, so that a first call of seconds may be timed.
        devices: on which it runs.
    """

    build: Callable[[Any], Call | Setup]
    small: int = NO_LIMIT
    compiles: bool = False
    serial: bool = False
    warm: bool = False
    devices: tuple[str, ...] = ("cpu", "cuda")


@dataclass(frozen=True)
class Comparison:
    """Providers of one op at several sizes; the providers of a size are timed in turn and form a group.

    Args:
        op: name of the group, with the size.
        sizes: by scale.
        inputs: makes what all providers of a size are given, from the size and the device.
        work: of one call at a size.
        rounds: time exactly so many calls for these inputs and none before them: for calls that differ.
        slow: seconds; a longer call is timed once. None takes that of :mod:`.timing`.
        graph: on CUDA, time replays of a CUDA graph where the call can be captured.
        serial_part: what of our implementation runs in one thread: the reason where threads gain little.
    """

    op: str
    sizes: Mapping[Scale, list[Size]]
    inputs: Callable[[Size, torch.device], Any]
    providers: Mapping[str, Provider]
    work: Callable[[Size], Work] | None = None
    rounds: Callable[[Any], int] | None = None
    slow: float | None = None
    graph: bool = False
    serial_part: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Case:
    """One row: a provider at a size on a number of threads."""

    comparison: Comparison
    size: Size
    provider: str
    threads: int

    @property
    def group(self) -> str:
        return f"{self.comparison.op} {name_of(self.size)}"

    def __repr__(self) -> str:  # also the id of the test
        return f"{name_of(self.size).replace(' ', ',')}-{self.provider}-{self.threads}"


Row = Callable[[Case], None]
"""What a benchmark calls to measure and report one of its rows."""


Test = TypeVar("Test", bound=Callable[..., None])


def compared(what: Comparison) -> Callable[[Test], Test]:
    """Decorate a test: its parameter ``case`` takes every row of the comparison."""

    def decorate(test: Test) -> Test:
        setattr(test, COMPARED, what)
        return test

    return decorate


def name_of(size: Size) -> str:
    """``{"C": 1000, "D": 64}`` as ``C=1000 D=64``."""
    return " ".join(f"{letter}={value}" for letter, value in size.items())


def cases(comparison: Comparison, scale: Scale, threads: tuple[int, ...], device: str) -> list[Case]:
    """The rows of a comparison, group by group; what needs no threads is listed for the first number only."""
    counts = threads if device == "cpu" else threads[:1]
    return [
        Case(comparison, size, name, count)
        for size in comparison.sizes[scale]
        for count in counts
        for name, provider in comparison.providers.items()
        if count == counts[0] or not (provider.serial or provider.compiles)
    ]


def reason_not_to_run(case: Case, scale: Scale, device: str) -> str | None:
    """Why a row is not measured at this scale and on this device; None if it is."""
    provider = case.comparison.providers[case.provider]
    if device not in provider.devices:
        return f"runs on {' and '.join(provider.devices)} only"
    if scale == "smoke" and provider.compiles:
        return "measured from --scale small on: it compiles for seconds"
    if scale != "full" and case.size.get("C", 0) > provider.small:
        if provider.compiles:
            return "measured at --scale full: it compiles for seconds, again for each size"
        return "measured at --scale full: for so many classes its calls take long"
    return None
