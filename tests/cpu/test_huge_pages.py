from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fastproto.cpu.huge_pages import MIN_BYTES, ask_for_large_pages


def flags_of(address: int) -> list[str]:
    """What the kernel has been told of the memory at this address."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, _, rest = line.partition(" ")
        if "-" in first and rest.startswith(("r", "-")):
            low, high = (int(end, 16) for end in first.split("-"))
            inside = low <= address < high
        elif inside and line.startswith("VmFlags"):
            return line.split()[1:]
    return []


@pytest.mark.skipif(
    not Path("/proc/self/smaps").is_file() or not Path("/sys/kernel/mm/transparent_hugepage").is_dir(),
    reason="needs Linux with transparent large pages",
)
def test_large_buffers_are_advised() -> None:
    large = torch.zeros(MIN_BYTES // 4 + 12345)
    assert ask_for_large_pages(large) is large
    assert "hg" in flags_of(large.data_ptr() + large.nbytes // 2)
    assert not large.any()


def test_what_is_small_or_elsewhere_is_left_alone() -> None:
    for tensor in (torch.zeros(7, 5), torch.zeros(0), torch.empty(MIN_BYTES, device="meta")):
        assert ask_for_large_pages(tensor) is tensor
