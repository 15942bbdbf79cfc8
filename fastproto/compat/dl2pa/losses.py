"""The authors' losses under their names; the code of their long-tailed runs uses ``LTloss`` and ``produce_Ew``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastproto.compat.target_rows import dot_regression, squared_cosine_sum


def BLoss(criterion: nn.Module | None, feat: Tensor, targetP: Tensor) -> Tensor:
    """The sum over the batch of (1 - cos)², ``loss="official"`` of :func:`fastproto.ipm_loss`.

    Args:
        criterion: their ``nn.CosineSimilarity``, which is not called; None is the same.
        feat: [B, D], any float dtype.
        targetP: unit rows [B, D], such as ``classifier.polars[:, target].T``; also [1, B, D], which their code for
            ImageNet makes of labels [B, 1] and then reduces over the batch: here it is one cosine for each sample.

    Returns:
        A scalar.

    Raises:
        TypeError: another criterion.
        ValueError: shapes that do not match, rows that are not unit, NaN in the features (on the CPU).
    """
    if not isinstance(criterion, nn.CosineSimilarity | None):
        raise TypeError(
            f"criterion is {type(criterion).__name__}; expected nn.CosineSimilarity or None: use the criterion itself "
            "as the loss"
        )
    rows = targetP[0] if targetP.ndim == 3 and len(targetP) == 1 else targetP
    return squared_cosine_sum(feat, rows)


def LTloss(feat: Tensor, target: Tensor, reg_lam: float = 0) -> Tensor:
    """The mean over the batch of ``(x·m - ‖x‖·‖m‖)² / (2‖x‖)``, their loss of long-tailed data.

    ‖x‖ and ‖m‖ count as constants: the gradient of x is ``(x·m - ‖x‖·‖m‖) / ‖x‖ · m / B``. For the unit features that
    ``fixed_Classifier.forward`` returns it is the mean of ½‖m‖² (1 - cos)²: Eq. 6 with the weight ‖m‖².

    Args:
        feat: [B, D].
        target: [B, D], rows of any length above zero, such as ``(produce_Ew(y, C) * classifier.polars)[:, y].T``.
        reg_lam: adds ``reg_lam`` times the mean ‖x‖.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes that do not match.
    """
    return dot_regression(feat, target, reg_lam=reg_lam)


def produce_Ew(label: Tensor, num_classes: int) -> Tensor:
    """√(B / classes present / samples of the class in the batch) for each class [1, C]; 1 for absent ones.

    ``label`` is int64 [B] on any device. Nothing waits for the device.
    """
    counts = torch.zeros(num_classes, device=label.device).index_add_(
        0, label, torch.ones(len(label), device=label.device)
    )
    present = (counts > 0).sum().clamp_min(1)
    return torch.where(counts > 0, (len(label) / present / counts.clamp_min(1)).sqrt(), 1.0)[None]
