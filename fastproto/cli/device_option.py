"""``--device``, of fastproto-prototypes and fastproto-predict."""

from __future__ import annotations


def check_device(device: str) -> None:
    """Raise ValueError for a device that this machine does not have."""
    import torch

    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:  # unknown names and missing devices
        raise ValueError(f"--device is {device}, which this machine lacks; expected cpu, or cuda on a GPU") from error
