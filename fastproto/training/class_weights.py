"""A weight for each training sample by its class, for data with a long tail."""

from __future__ import annotations

import torch
from torch import Tensor

from fastproto.support.distributed import gather_labels
from fastproto.training.settings_and_flags import OptimConfig


class ClassWeights:
    """The weights of ``optim.class_weights``. No module: neither checkpoints, DDP nor a precision shall touch them.

    Args:
        counts: int64 [C], the training samples n_c of each class; only ``inverse_frequency`` looks at them.
    """

    def __init__(self, config: OptimConfig, counts: Tensor) -> None:
        self.kind, self.from_epoch = config.class_weights, config.weights_from_epoch
        self.by_class = inverse_frequency(counts)

    def of(self, labels: Tensor, epoch: int) -> Tensor | None:
        """The weights float32 [B] of labels int64 [B], or None where this epoch has none."""
        if self.kind == "none" or epoch < self.from_epoch:
            return None
        if self.kind == "in_batch":
            return in_batch(labels, gather_labels(labels))
        self.by_class = self.by_class.to(labels.device)
        return self.by_class[labels]


def inverse_frequency(counts: Tensor) -> Tensor:
    """``counts.sum() / (len(counts) * counts)`` as float32 [C]; 0 for a class without samples."""
    share = counts.double() * len(counts) / counts.sum()
    return torch.where(counts > 0, 1 / share, 0).float()


def in_batch(labels: Tensor, everyones: Tensor) -> Tensor:
    """``B / len(y.unique()) / y.bincount()[labels]`` for the labels y [B] of all ranks; float32, without waiting.

    Source: the long-tail runs of the authors' code (Saadabadi et al., CVPR 2024).
    """
    counts = (everyones[:, None] == everyones).sum(1).float()
    classes = counts.reciprocal().sum().round()
    own = (labels[:, None] == everyones).sum(1)
    return (len(everyones) / (classes * own)).float()
