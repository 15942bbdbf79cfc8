"""Buffers that must stay exact: what averaging writes into them is found, and gives way to the newest exact values.

Exponential moving averages and stochastic weight averaging copy a module and write means into the copy's buffers (some
then copy these back). The mean of two permutations is no permutation, and that of two rotations no rotation. A copy of
a module therefore follows the module it was copied from: written to from outside, it takes over that one's newest
values, until it sets its own. A module that was copied keeps its values a second time for this purpose.

The mean of different permutations is never a permutation, and that of different unit vectors is shorter than they are:
so new values that someone sets on purpose can be told from means, and are kept.
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from fastproto.support.checks import UNIT_TOLERANCE, check_permutation

NAMES = ("assignment", "prototypes", "prices")
UNIT = 1e-5  # rows this close to unit norm, if means at all, are means of rows within SAME of each other
SAME = 1e-2
UNCOUNTED = -1  # the version of a tensor that was made in inference mode
SAMPLE, SAMPLES = 16, 256  # rows that stand for earlier prototypes, and of how many these are kept


class Stamp(NamedTuple):
    """A buffer as it was last seen: writes raise its version, except those through ``.data`` or NumPy."""

    tensor: Tensor
    version: int
    pointer: int
    total: Tensor | None  # of the bits, where such writes are looked for

    def fits(self, tensor: Tensor | None) -> bool:
        """Whether it is the same buffer and no counted write came between."""
        if tensor is not self.tensor or tensor.data_ptr() != self.pointer:
            return False
        return self.version == UNCOUNTED or tensor._version == self.version


@dataclass
class Record:
    """Exact values for the copies to take over, and what there was before."""

    values: dict[str, Tensor] = field(default_factory=dict)
    permutations: set[bytes] = field(default_factory=set)
    samples: deque[Tensor] = field(default_factory=lambda: deque(maxlen=SAMPLES))  # [<= 16, D] each

    def renew(self, buffers: dict[str, Tensor]) -> None:
        """Take over these values."""
        self.values = {name: tensor.detach().clone() for name, tensor in buffers.items()}
        self.remember(buffers)

    def remember(self, buffers: dict[str, Tensor]) -> None:
        """Know these values again."""
        self.permutations.add(_digest(buffers["assignment"]))
        sample = _sample(buffers["prototypes"].detach())
        if not any(_near(sample, earlier) for earlier in self.samples):
            self.samples.append(sample)


class ExactBuffers:
    """The exact buffers of one module: how they were last seen, for its copies, and of the module it is a copy of."""

    def __init__(self, parent: Record | None = None) -> None:
        self.stamps: dict[str, Stamp] = {}
        self.own = Record()
        self.parent = parent

    def source(self) -> dict[str, Tensor]:
        """The newest exact values, nothing if this module was neither copied nor is a copy."""
        return self.parent.values if self.parent is not None else self.own.values

    def unwritten(self, buffers: dict[str, Tensor | None]) -> bool:
        """Whether no counted write came since the last look: costs a microsecond and never waits for the device."""
        stamps = self.stamps
        return bool(stamps) and all(stamp.fits(buffers[name]) for name, stamp in stamps.items())

    def untouched(self, buffers: dict[str, Tensor | None]) -> bool:
        """The same for every write; this reads the buffers of copies and of what was copied."""
        if not self.unwritten(buffers):
            return False
        return not self.source() or all(
            stamp.total is not None and torch.equal(stamp.total, total_of(stamp.tensor))
            for stamp in self.stamps.values()
        )

    def keep(self, buffers: dict[str, Tensor], *, decided: bool = False) -> None:
        """The values are right as they are; ``decided``: they are the module's own, and it follows no other."""
        if decided:
            self.parent = None
        if self.own.values:
            self.own.renew(buffers)
        elif self.parent is not None:
            self.own.remember(buffers)
        known = bool(self.source())
        self.stamps = {
            name: Stamp(tensor, _version(tensor), tensor.data_ptr(), total_of(tensor) if known else None)
            for name, tensor in buffers.items()
        }

    def moved(self, buffers: dict[str, Tensor]) -> bool:
        """Whether the same values are now in these tensors, perhaps on another device."""
        return bool(self.stamps) and all(
            stamp.total is not None and int(stamp.total) == int(total_of(buffers[name]))
            for name, stamp in self.stamps.items()
        )

    def for_a_copy(self, buffers: dict[str, Tensor]) -> ExactBuffers:
        """Of a copy of the module, which begins to follow it."""
        if not self.own.values:
            self.own.renew(buffers)
            self.keep(buffers)
        return ExactBuffers(self.own)

    def restore(self, buffers: dict[str, Tensor]) -> dict[str, Tensor]:
        """The buffers after a write from outside: the newest values, except where new ones were set on purpose."""
        source, records = self.source(), [self.own] + ([self.parent] if self.parent is not None else [])
        fits = _is_permutation(buffers["assignment"], source["assignment"])
        exchanged = any(stamp.tensor is not buffers[name] for name, stamp in self.stamps.items())
        if exchanged and fits and _are_unit_rows(buffers["prototypes"], source["prototypes"], UNIT_TOLERANCE):
            # other tensors, as torch.func.functional_call puts them there for a while
            if self.parent is None:
                self.keep(buffers)
            return buffers
        new = {
            "assignment": fits and not any(_digest(buffers["assignment"]) in x.permutations for x in records),
            "prototypes": _are_new_rows(buffers["prototypes"], source["prototypes"], records),
        }
        for name, value in source.items():
            if new.get(name, new["assignment"]):
                continue
            given = buffers[name]
            if exchanged or given.shape != value.shape or given.dtype != value.dtype:
                buffers[name] = value.to(given.device, copy=True)
            else:
                given.detach().copy_(value)
        self.keep(buffers, decided=any(new.values()))
        return buffers


def total_of(tensor: Tensor) -> Tensor:
    """A number that a write to the tensor changes, from its bits and exact: the same in any order of the sum."""
    flat = tensor.detach().reshape(-1)
    if flat.dtype == torch.int64:  # a position counts as well: permutations have the same sum
        return (flat * torch.arange(1, len(flat) + 1, device=flat.device)).sum()
    even = len(flat) // 2 * 2 if flat.element_size() == 4 and flat.storage_offset() % 2 == 0 else 0
    rest = flat[even:].double().sum()
    return rest.view(torch.int64) + (flat[:even].view(torch.int64).sum() if even else 0)


def _version(tensor: Tensor) -> int:
    return UNCOUNTED if tensor.is_inference() else tensor._version


def _digest(assignment: Tensor) -> bytes:
    return hashlib.blake2b(assignment.detach().cpu().contiguous().numpy().tobytes(), digest_size=16).digest()


def _sample(rows: Tensor) -> Tensor:
    return rows[torch.linspace(0, len(rows) - 1, min(SAMPLE, len(rows)), device="cpu").long().to(rows.device)]


def _is_permutation(given: Tensor, like: Tensor) -> bool:
    try:
        check_permutation("assignment", given, len(like))
    except ValueError:
        return False
    return True


def _are_new_rows(given: Tensor, newest: Tensor, records: list[Record]) -> bool:
    """Whether these are unit rows that are neither the newest, nor earlier ones, nor a mean of these."""
    if not _are_unit_rows(given, newest, UNIT) or _near(given, newest):
        return False
    earlier = [sample for record in records for sample in record.samples]
    current = _sample(newest)
    return not any(_near(_sample(given), sample) for sample in earlier if not _near(sample, current))


def _are_unit_rows(given: Tensor, like: Tensor, tolerance: float) -> bool:
    if given.shape != like.shape or given.dtype != like.dtype:
        return False
    return bool((torch.linalg.vector_norm(given, dim=1) - 1).abs().max() <= tolerance)  # not of NaN


def _near(rows: Tensor, others: Tensor) -> bool:
    return bool(torch.linalg.vector_norm(rows - others.to(rows.device), dim=1).max() <= SAME)


def readable(buffers: dict[str, Tensor]) -> bool:
    """Whether these are plain tensors with values: not under transforms, on meta or where a graph is captured."""
    return all(type(x) is Tensor and x.device.type != "meta" for x in buffers.values()) and not (
        torch._C._functorch.peek_interpreter_stack() is not None
        or (any(x.is_cuda for x in buffers.values()) and torch.cuda.is_current_stream_capturing())
    )
