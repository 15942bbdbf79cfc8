"""Large pages for large buffers: a row fetched at random then seldom costs a walk through the page table as well."""

from __future__ import annotations

import ctypes
import mmap
import sys
from contextlib import suppress

from torch import Tensor

MIN_BYTES = 8 << 20  # a few pages of 2 MiB; what is smaller is in the reach of the ordinary ones


def ask_for_large_pages(tensor: Tensor) -> Tensor:
    """Advise Linux to hold this tensor in pages of 2 MiB, before it is written; nothing elsewhere, or where it refuses.

    The same tensor. Only the place of the numbers changes, never a result.
    """
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if tensor.device.type == "cpu" and sys.platform == "linux" and advice is not None and tensor.nbytes >= MIN_BYTES:
        first = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        length = tensor.data_ptr() + tensor.nbytes - first
        with suppress(OSError, AttributeError):  # no C library to ask; what it answers does not matter
            ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), advice)
    return tensor
