"""The least and the most that a setting may be."""

from __future__ import annotations

import math

from fastproto.support.loss_options import POWERS

_MANY, _LARGE = 2**31 - 1, 1e15  # as float32, products of two large ones are finite still
RANGES = {
    "data.num_classes": (2, _MANY),
    "data.image_size": (8, 2**15),
    "data.batch_size": (1, _MANY),
    "data.workers": (0, 2**12),
    "head.dim": (2, _MANY),
    "head.initial_samples": (1, _MANY),
    "optim.epochs": (1, _MANY),
    "devices": (1, 2**16),
    "num_nodes": (1, 2**16),
    "optim.lr": (0, _LARGE),
    "optim.weight_decay": (0, _LARGE),
    "optim.warmup_epochs": (0, _LARGE),
    "optim.clip_norm": (0, _LARGE),
    "optim.mixup": (0, 1e3),
    "optim.weights_from_epoch": (0, _MANY),
    "head.scale": (0, _LARGE),
    "head.power": POWERS,
    "head.uniformity_weight": (0, _LARGE),
    "head.renewals_per_epoch": (0, _LARGE),
    "head.early_epochs": (0, _LARGE),
    "head.early_renewals_per_epoch": (0, _LARGE),
}


def range_of(value: float, least: float, most: float) -> str:
    """What is expected instead of a value outside of its range."""
    if value != value or abs(value) == math.inf:  # not math.isfinite: an int may be too large for it
        return "a finite number"
    return f"at most {most:g}" if value > most else f"at least {least}"
