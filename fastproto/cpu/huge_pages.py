"""Large pages for large buffers: reading rows in random order then causes fewer TLB misses."""

from __future__ import annotations

import ctypes
import mmap
import sys
from contextlib import suppress

from torch import Tensor

MIN_BYTES = 8 << 20  # a few pages of 2 MiB; smaller buffers cause few TLB misses anyway


def ask_for_large_pages(tensor: Tensor) -> Tensor:
    """Advise Linux to hold this tensor in pages of 2 MiB; to be called before it is first written.

    Returns the same tensor. Has no effect on other systems or where Linux refuses, and never on a result.
    """
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if tensor.device.type == "cpu" and sys.platform == "linux" and advice is not None and tensor.nbytes >= MIN_BYTES:
        first = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        length = tensor.data_ptr() + tensor.nbytes - first
        with suppress(OSError, AttributeError):  # no C library; the return value does not matter
            ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), advice)
    return tensor
