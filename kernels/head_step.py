"""One training step of the head: loss, gradient and class means from one read of the features.

What ipm_loss and update_class_means_ compute, on the walk of the latter (its docstring has the bytes): beside the sort,
one launch, and a small one for the classes that cross the border of two walks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .ipm_loss import LOSS_FACTOR, ipm_loss
from .lib.row_blocks import WIDEST
from .update_class_means import update_class_means_, walk_batch


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
    skipped: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Loss per sample [B] float32 and its gradient [B, D]; means [C, D] change in place.

    Arguments as in ipm_loss and update_class_means_. Rows of more than 4096 columns, which no program can keep, are
    read once for the loss and once for the means.
    """
    if features.shape[1] > WIDEST:
        losses, gradient, _ = ipm_loss(features, labels, prototypes, assignment, loss=loss, flag=flag, skipped=skipped)
        update_class_means_(means, features, labels, momentum, flag=flag)
        return losses, gradient
    prototypes = prototypes if prototypes.stride(1) == 1 else prototypes.contiguous()
    losses = torch.empty(features.shape[0], dtype=torch.float32, device=features.device)
    gradient = torch.empty(features.shape, dtype=features.dtype, device=features.device)
    with_loss = {
        "prototypes_ptr": prototypes,
        "assignment_ptr": assignment.contiguous(),
        "loss_ptr": losses,
        "gradient_ptr": gradient,
        "skipped_ptr": skipped,
        "stride_prototype": prototypes.stride(0),
        "factor": LOSS_FACTOR[loss],
    }
    walk_batch(means, features, labels, momentum, flag, with_loss)
    return losses, gradient
