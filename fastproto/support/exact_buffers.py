"""Buffers that must stay exact: means that weight averaging writes into them are replaced by the newest exact values.

Exponential moving averages and stochastic weight averaging copy a module and write means into the buffers of the copy
(some then copy these back). But the mean of two permutations is not a permutation, and the mean of two rotations not a
rotation. A copy of a module therefore follows its original: after a write from outside, the copy takes the newest
values of the original, until it sets its own. The original stores its values a second time for this purpose.

The mean of different permutations is never a permutation, and the mean of different unit vectors is shorter than 1.
Values that a user sets on purpose can therefore be told from means, and are kept.
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
UNIT = 1e-5  # largest deviation from norm 1; means that pass are of rows within SAME of each other
SAME = 1e-2  # rows within this distance count as equal
UNCOUNTED = -1  # version of a tensor made in inference mode, which counts no writes
SAMPLE, SAMPLES = 16, 256  # rows kept of earlier prototypes, and number of such samples


class Stamp(NamedTuple):
    """State of a buffer at the last check. Writes raise the version, except those through ``.data`` or NumPy."""

    tensor: Tensor
    version: int
    pointer: int
    total: Tensor | None  # checksum of the bits, to detect such writes; None: not needed

    def fits(self, tensor: Tensor | None) -> bool:
        """Whether ``tensor`` is the same buffer, without a counted write since."""
        if tensor is not self.tensor or tensor.data_ptr() != self.pointer:
            return False
        return self.version == UNCOUNTED or tensor._version == self.version


@dataclass
class Record:
    """The newest exact values, which copies take, and fingerprints of earlier values."""

    values: dict[str, Tensor] = field(default_factory=dict)
    permutations: set[bytes] = field(default_factory=set)
    samples: deque[Tensor] = field(default_factory=lambda: deque(maxlen=SAMPLES))  # [<= 16, D] each

    def renew(self, buffers: dict[str, Tensor]) -> None:
        """Store these values as the newest."""
        self.values = {name: tensor.detach().clone() for name, tensor in buffers.items()}
        self.remember(buffers)

    def remember(self, buffers: dict[str, Tensor]) -> None:
        """Store fingerprints of these values, to recognise them later."""
        self.permutations.add(_digest(buffers["assignment"]))
        sample = _sample(buffers["prototypes"].detach())
        if not any(_near(sample, earlier) for earlier in self.samples):
            self.samples.append(sample)


class ExactBuffers:
    """The exact buffers of one module: their last state, the record for its copies, and the record of its original."""

    def __init__(self, parent: Record | None = None) -> None:
        self.stamps: dict[str, Stamp] = {}
        self.own = Record()
        self.parent = parent

    def source(self) -> dict[str, Tensor]:
        """The newest exact values; empty if this module was never copied and is not a copy."""
        return self.parent.values if self.parent is not None else self.own.values

    def unwritten(self, buffers: dict[str, Tensor | None]) -> bool:
        """Whether no counted write happened since the last check; cheap, and never waits for the device."""
        stamps = self.stamps
        return bool(stamps) and all(stamp.fits(buffers[name]) for name, stamp in stamps.items())

    def untouched(self, buffers: dict[str, Tensor | None]) -> bool:
        """As :meth:`unwritten`, but for every write: reads the buffers of copies and of their originals."""
        if not self.unwritten(buffers):
            return False
        return not self.source() or all(
            stamp.total is not None and torch.equal(stamp.total, total_of(stamp.tensor))
            for stamp in self.stamps.values()
        )

    def keep(self, buffers: dict[str, Tensor], *, decided: bool = False) -> None:
        """Accept the current values; ``decided``: the module has set them, and no longer follows its original."""
        if decided:
            self.parent = None
        if self.own.values:
            self.own.renew(buffers)
        elif self.parent is not None:
            self.own.remember(buffers)
        known = bool(self.source())
        self.stamps = {
            name: Stamp(tensor, version_of(tensor), tensor.data_ptr(), total_of(tensor) if known else None)
            for name, tensor in buffers.items()
        }

    def moved(self, buffers: dict[str, Tensor]) -> bool:
        """Whether these tensors hold the values of the last check, perhaps on another device."""
        return bool(self.stamps) and all(
            stamp.total is not None and int(stamp.total) == int(total_of(buffers[name]))
            for name, stamp in self.stamps.items()
        )

    def for_a_copy(self, buffers: dict[str, Tensor]) -> ExactBuffers:
        """The exact buffers of a new copy of the module, which follows it."""
        if not self.own.values:
            self.own.renew(buffers)
            self.keep(buffers)
        return ExactBuffers(self.own)

    def restore(self, buffers: dict[str, Tensor]) -> dict[str, Tensor]:
        """Restore the newest values after a write from outside, except where new ones were set on purpose."""
        source, records = self.source(), [self.own] + ([self.parent] if self.parent is not None else [])
        fits = _is_permutation(buffers["assignment"], source["assignment"])
        exchanged = any(stamp.tensor is not buffers[name] for name, stamp in self.stamps.items())
        if exchanged and fits and _are_unit_rows(buffers["prototypes"], source["prototypes"], UNIT_TOLERANCE):
            # torch.func.functional_call puts other tensors in place temporarily
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
    """A checksum of the bits of a tensor, an int64 scalar."""
    flat = tensor.detach().reshape(-1)
    if flat.dtype == torch.int64:  # weighted by position: all permutations have the same sum
        return (flat * torch.arange(1, len(flat) + 1, device=flat.device)).sum()
    even = len(flat) // 2 * 2 if flat.element_size() == 4 and flat.storage_offset() % 2 == 0 else 0
    rest = flat[even:].double().sum()
    return rest.view(torch.int64) + (flat[:even].view(torch.int64).sum() if even else 0)


def version_of(tensor: Tensor) -> int:
    """The number of counted writes; :data:`UNCOUNTED` where they are not counted."""
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
    """Whether these are unit rows, and neither the newest values, nor earlier ones, nor a mean of them."""
    if not _are_unit_rows(given, newest, UNIT) or _near(given, newest):
        return False
    earlier = [sample for record in records for sample in record.samples]
    current = _sample(newest)
    return not any(_near(_sample(given), sample) for sample in earlier if not _near(sample, current))


def _are_unit_rows(given: Tensor, like: Tensor, tolerance: float) -> bool:
    if given.shape != like.shape or given.dtype != like.dtype:
        return False
    return bool((torch.linalg.vector_norm(given, dim=1) - 1).abs().max() <= tolerance)  # False for NaN


def _near(rows: Tensor, others: Tensor) -> bool:
    return bool(torch.linalg.vector_norm(rows - others.to(rows.device), dim=1).max() <= SAME)


def readable(buffers: dict[str, Tensor]) -> bool:
    """Whether the values can be read: not under a functorch transform, on meta, or during the capture of a graph."""
    return all(type(x) is Tensor and x.device.type != "meta" for x in buffers.values()) and not (
        torch._C._functorch.peek_interpreter_stack() is not None
        or (any(x.is_cuda for x in buffers.values()) and torch.cuda.is_current_stream_capturing())
    )
