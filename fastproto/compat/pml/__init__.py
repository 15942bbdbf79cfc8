"""PyTorch Metric Learning: a loss for its trainers, reducers and collectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastproto.compat.lazy_names import load_name

if TYPE_CHECKING:
    from fastproto.compat.pml.loss import PrototypeLoss

__all__ = ["PrototypeLoss"]


def __getattr__(name: str) -> object:
    return load_name(
        __name__,
        name,
        {"PrototypeLoss": "loss"},
        needs="pytorch_metric_learning",
        distribution="pytorch-metric-learning",
    )
