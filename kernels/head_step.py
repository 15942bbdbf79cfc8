"""One training step of the head: loss, gradient and class means from one read of the features.

What ipm_loss and update_class_means_ compute, on the walk of the latter (its docstring has the bytes): beside the sort,
one launch, and a small one for the classes that cross the border of two walks.
"""

from __future__ import annotations

from torch import Tensor

from .ipm_loss import ipm_loss
from .rows import WIDEST
from .update_class_means import update_class_means_


def head_step_(
    means: Tensor,
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    assignment: Tensor,
    *,
    momentum: float,
    loss: str = "eq6",
    flag: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Loss per sample [B] float32 and its gradient [B, D]; means [C, D] change in place.

    Arguments as in ipm_loss and update_class_means_. Rows of more than 4096 columns, which no program can keep, are
    read once for the loss and once for the means.
    """
    if features.shape[1] > WIDEST:
        losses, gradient, _ = ipm_loss(features, labels, prototypes, assignment, loss=loss, flag=flag)
        update_class_means_(means, features, labels, momentum, flag=flag)
        return losses, gradient
    found = update_class_means_(means, features, labels, momentum, flag=flag, with_loss=(prototypes, assignment, loss))
    assert found is not None
    return found
