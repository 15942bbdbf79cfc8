"""Long-tailed training sets: later classes keep fewer pictures."""

from __future__ import annotations

import torch
from torch import Tensor

from .splits import LabelledImages, draw_by_class

SEED = 2024


def long_tail_counts(largest: int, num_classes: int, imbalance: float) -> Tensor:
    """How many pictures each class keeps at most: int64 [num_classes], falling exponentially.

    ``floor(largest * imbalance ** (c / (num_classes - 1)))``, and at least 1. Source: Cui et al., CVPR 2019, section 5.
    """
    parts = (largest * imbalance ** (label / (num_classes - 1)) for label in range(num_classes))
    return torch.tensor([max(1, int(part)) for part in parts])


def long_tailed(part: LabelledImages, num_classes: int, imbalance: float) -> LabelledImages:
    """A training part whose classes keep :func:`long_tail_counts` random pictures, in their order.

    The largest class of ``part`` sets the scale; a class with fewer pictures than it may keep, keeps them all. The
    same pictures are chosen on every call.

    Raises:
        ValueError: ``imbalance`` is not in (0, 1].
    """
    check_imbalance(imbalance)
    largest = int(torch.bincount(part.labels).max())
    kept, _ = draw_by_class(part.labels, long_tail_counts(largest, num_classes, imbalance), SEED)
    return part.take(kept)


def check_imbalance(imbalance: float) -> None:
    """Raise ValueError for an imbalance that is not in (0, 1]."""
    if not 0 < imbalance <= 1:
        raise ValueError(
            f"imbalance={imbalance} is not in (0, 1]: give the size of the last class divided by that of the first"
        )
