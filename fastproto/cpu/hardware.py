"""Which products are fast: read from the hardware's features, never timed, so that results are the same bit for bit."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Hardware(NamedTuple):
    """Whether bfloat16 products are faster than float32 ones, and 8-bit integer products than bfloat16 ones."""

    bfloat16: bool
    integers: bool


def hardware_of(device: torch.device) -> Hardware:
    return Hardware(quick_bfloat16(device), quick_integers(device))


def quick_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 products are faster than float32 ones."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and any(
        getattr(torch.cpu, name, bool)() for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    )


def quick_integers(device: torch.device) -> bool:
    """Whether products of 8-bit integers are faster than bfloat16 ones."""
    return device.type == "cpu" and bool(getattr(torch.cpu, "_is_vnni_supported", bool)())
