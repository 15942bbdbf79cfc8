"""Errors in the rows of a batch, and the device flag that records them until it is read.

Checking labels or features on a GPU would make every step wait. The kernels skip a bad row (zero loss, zero gradient,
no share in the class means) and set the bit of its error; :func:`check_batches` raises the recorded errors. The Numba
CPU kernels return the same bits.
"""

from __future__ import annotations

from enum import IntFlag
from typing import Final

import torch
from torch import Tensor


class RowError(IntFlag):
    """Errors of a row, one bit each; lib/error_flags of the kernels, which do not import this package, repeats them."""

    BAD_LABEL = 1
    NOT_FINITE = 2
    BAD_ASSIGNMENT = 4
    BAD_SHARE = 8
    NOT_UNIT = 16  # of a prototype; the kernels do not check it


# plain integers, which torch.compile and Numba accept
BAD_LABEL: Final = RowError.BAD_LABEL.value
NOT_FINITE: Final = RowError.NOT_FINITE.value
BAD_ASSIGNMENT: Final = RowError.BAD_ASSIGNMENT.value
BAD_SHARE: Final = RowError.BAD_SHARE.value
NOT_UNIT: Final = RowError.NOT_UNIT.value

_SENTENCES = {
    BAD_LABEL: "labels outside 0..C-1 (check the number of classes or leave out the unlabelled samples)",
    NOT_FINITE: "features with NaN or inf (lower the learning rate or look for the layer that overflows)",
    BAD_ASSIGNMENT: "an assignment that names rows outside 0..C-1 (pass the result of assign, or torch.randperm)",
    BAD_SHARE: "lam with NaN or outside [0, 1] (draw it from a Beta distribution)",
}
_flags: dict[tuple[torch.device, bool], Tensor] = {}  # of the functions; a head has its own flag


def new_flag(device: torch.device) -> Tensor:
    return torch.zeros(1, dtype=torch.int32, device=device)


def flag_of(device: torch.device, skip: bool = False) -> Tensor | None:
    """The flag of the functions on a device, int32 [1]; ``skip``: that of calls that allow NaN.

    None while a CUDA graph is captured before the flag exists: it would lie in the memory of the graph.
    """
    key = (device, skip)
    if key not in _flags:
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return None
        _flags[key] = new_flag(device)
    return _flags[key]


def check_batches() -> None:
    """Raise the errors that the Triton kernels have recorded since the last call; waits for the device.

    This concerns :func:`fastproto.ipm_loss`, :func:`fastproto.update_class_means_` and
    :func:`fastproto.nearest_prototypes` on CUDA tensors: they skip bad rows and never wait for the device. On other
    backends they raise at once. :class:`fastproto.PrototypeHead` has its own flag and its own ``check_batches``.

    Raises:
        ValueError: labels or assignment outside 0..C-1, NaN or inf in the features, lam outside [0, 1]; each recorded
            error is raised once.
    """
    bits = 0
    for (_, skip), flag in _flags.items():
        bits |= read_and_clear(flag) & ~(NOT_FINITE if skip else 0)
    raise_bits(bits)


def read_and_clear(flag: Tensor) -> int:
    """Return the bits of a flag, and reset it to zero; waits for the device."""
    bits = int(flag)
    flag.zero_()
    return bits


def raise_bits(bits: int) -> None:
    found = [sentence for bit, sentence in _SENTENCES.items() if bits & bit]
    if found:
        raise ValueError(
            f"rows of earlier batches were left out on the device: {'; '.join(found)}; expected none, and the loss and "
            "the class means are those of the other rows"
        )
