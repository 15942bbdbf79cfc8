"""Error flags of the kernels that hold rows: why a row was left out, in bits that add up on the device.

The package repeats the bits, with a sentence for each, in its own support/error_flags."""
# jit functions have no Python types
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"

from __future__ import annotations

import triton
import triton.language as tl

BAD_LABEL, NOT_FINITE, BAD_ASSIGNMENT = 1, 2, 4  # bits of the error flag: why a row was left out
_BAD_LABEL, _NOT_FINITE, _BAD_ASSIGNMENT = tl.constexpr(1), tl.constexpr(2), tl.constexpr(4)


@triton.jit
def raise_flag(flag_ptr, live, known, assigned, finite):
    """Sets the bits of what is wrong with the live rows. An atomic or of integers: the order does not matter."""
    bits = tl.where(known, tl.where(assigned, 0, _BAD_ASSIGNMENT) | tl.where(finite, 0, _NOT_FINITE), _BAD_LABEL)
    tl.atomic_or(flag_ptr + tl.zeros_like(bits), bits, mask=live & (bits != 0))


@triton.jit
def count_skipped(skipped_ptr, live, finite):
    """Adds the number of live rows that are not finite to an int64 counter. The order does not matter."""
    one = tl.full(live.shape, 1, tl.int64)
    tl.atomic_add(skipped_ptr + tl.zeros_like(one), one, mask=live & (finite == 0))
