"""A maker of every head by name, for tests of what all of them keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastproto import PrototypeHead
from fastproto.baselines import ETFHead, FixedSoftmaxHead, HPNHead, LinearHead, SoftmaxHead, TrainedPrototypesHead

from .helpers import unit_rows

HEADS: dict[str, Callable[..., Any]] = {
    "prototype": lambda c, d, **k: PrototypeHead(c, d, prototypes=unit_rows(c, d), **k),
    "official": lambda c, d, **k: PrototypeHead(
        c, d, prototypes=unit_rows(c, d), means="official", loss="official", **k
    ),
    "power": lambda c, d, **k: PrototypeHead(c, d, prototypes=unit_rows(c, d), loss="power", power=0.5, **k),
    "prototype_softmax": lambda c, d, **k: PrototypeHead(
        c, d, prototypes=unit_rows(c, d), loss="softmax", scale="norm", **k
    ),
    "trained": lambda *a, **k: TrainedPrototypesHead(*a, weights=unit_rows(10, 4), **k),
    "softmax": SoftmaxHead,
    "linear": LinearHead,
    "fixed_softmax": lambda c, d, **k: FixedSoftmaxHead(c, d, prototypes=unit_rows(c, d), **k),
    "hpn": lambda c, d, **k: HPNHead(c, d, prototypes=unit_rows(c, d), **k),
    "etf": lambda c, d, **k: ETFHead(5, d, **k),
}


def head(**options: Any) -> PrototypeHead:
    return PrototypeHead(10, 4, prototypes=unit_rows(10, 4), **options)


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Features [8, 4] and two labels for each."""
    return torch.randn(8, 4), torch.randint(0, 5, (8,)), torch.randint(0, 5, (8,))
