"""What can be wrong with a row of a batch, and the flag on the device that remembers it until someone looks.

Looking at labels or features on a GPU would make every step wait. The kernels leave a bad row out (zero loss, zero
gradient, no share in the class means) and set its bit; :func:`check_batches` raises what the bits say. The numba
kernels of the CPU return the same numbers.
"""

from __future__ import annotations

from enum import IntFlag
from typing import Final

import torch
from torch import Tensor


class RowError(IntFlag):
    """What is wrong with a row. The kernels, which import nothing of this package, repeat it in lib/error_flags."""

    BAD_LABEL = 1
    NOT_FINITE = 2
    BAD_ASSIGNMENT = 4
    BAD_SHARE = 8
    NOT_UNIT = 16  # a prototype; the kernels do not look at it


# plain integers: what torch.compile and numba take
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
_flags: dict[tuple[torch.device, bool], Tensor] = {}  # of the functions; a head has one of its own


def new_flag(device: torch.device) -> Tensor:
    return torch.zeros(1, dtype=torch.int32, device=device)


def flag_of(device: torch.device, skip: bool = False) -> Tensor | None:
    """The flag of the functions on this device, int32 [1]; ``skip``: of calls that may meet NaN.

    None in a CUDA graph that is captured before any call outside: the flag would lie in the graph's own memory.
    """
    key = (device, skip)
    if key not in _flags:
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return None
        _flags[key] = new_flag(device)
    return _flags[key]


def check_batches() -> None:
    """Raise what the functions on Triton found wrong in the batches since the last call; it waits for the device.

    For :func:`fastproto.ipm_loss`, :func:`fastproto.update_class_means_` and :func:`fastproto.nearest_prototypes` on
    CUDA tensors, which leave bad rows out and never wait. Elsewhere they raise at once and there is nothing to find.
    :class:`fastproto.PrototypeHead` has a flag and a ``check_batches`` of its own.

    Raises:
        ValueError: labels out of range, NaN or inf in the features, a bad assignment; said once.
    """
    bits = 0
    for (_, skip), flag in _flags.items():
        bits |= read_and_clear(flag) & ~(NOT_FINITE if skip else 0)
    raise_bits(bits)


def read_and_clear(flag: Tensor) -> int:
    """The bits, which are then zero."""
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
