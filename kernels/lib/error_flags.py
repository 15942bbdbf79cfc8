"""Error flags of the row kernels: bits that say why rows were skipped, combined on the device.

support/error_flags of the package repeats the bits, with a message for each."""
# jit functions have no Python types
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"

from __future__ import annotations

import triton
import triton.language as tl

BAD_LABEL, NOT_FINITE, BAD_ASSIGNMENT = 1, 2, 4  # bits of the error flag
_BAD_LABEL, _NOT_FINITE, _BAD_ASSIGNMENT = tl.constexpr(1), tl.constexpr(2), tl.constexpr(4)


@triton.jit
def raise_flag(flag_ptr, live, known, assigned, finite):
    """Sets the bits of the errors of the live rows, by atomic or: deterministic in any order."""
    bits = tl.where(known, tl.where(assigned, 0, _BAD_ASSIGNMENT) | tl.where(finite, 0, _NOT_FINITE), _BAD_LABEL)
    tl.atomic_or(flag_ptr + tl.zeros_like(bits), bits, mask=live & (bits != 0))


@triton.jit
def count_skipped(skipped_ptr, live, finite):
    """Adds the number of live rows that are not finite to an int64 counter: deterministic in any order."""
    one = tl.full(live.shape, 1, tl.int64)
    tl.atomic_add(skipped_ptr + tl.zeros_like(one), one, mask=live & (finite == 0))
