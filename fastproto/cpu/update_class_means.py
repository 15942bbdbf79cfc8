"""The class means on the CPU, by numba: one row after the other, in batch order."""

# compiled functions have no Python types
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastproto.cpu.numba_cache import compiled
from fastproto.cpu.row_helpers import AHEAD, GOOD, ONE, REORDER, ZERO, fetch_row, inverse_norm
from fastproto.support.checks import check_label_range
from fastproto.support.error_flags import BAD_LABEL, NOT_FINITE
from fastproto.support.row_norms import not_finite


def update_class_means_(means: Tensor, features: Tensor, labels: Tensor, momentum: float, skip: bool) -> None:
    """Update ``means`` [C, D] float32, contiguous, in place; on an error they are unchanged.

    Raises:
        ValueError: a label out of range; NaN or inf in the features unless ``skip``.
    """
    wrong, row, _ = _class_mean_rows(
        means.detach().numpy(),
        features.float().contiguous().numpy(),
        labels.contiguous().numpy(),
        np.float32(momentum),
        skip,
        torch.empty(len(labels), dtype=torch.float32, device="cpu").numpy(),
    )
    if wrong == BAD_LABEL:
        check_label_range("labels", labels, len(means))
    elif wrong == NOT_FINITE:
        raise not_finite(row)


@compiled(fastmath=REORDER)
def _class_mean_rows(means, x, labels, momentum, skip, inverse):
    """The recurrence q ← α q + (1-α) z in batch order; means change only when every row has been found good.

    ``inverse`` [B] is a buffer for 1/‖x‖. Returns the error, its row and the number of rows skipped.
    """
    dim, skipped = x.shape[1], 0
    for i in range(len(x)):
        if labels[i] < 0 or labels[i] >= len(means):
            return BAD_LABEL, i, skipped
        xx = ZERO
        for d in range(dim):
            xx += x[i, d] * x[i, d]
        inverse[i] = inverse_norm(xx)
        if inverse[i] < ZERO:
            if not skip:
                return NOT_FINITE, i, skipped
            skipped += 1
    for i in range(len(x)):
        label, share = labels[i], (ONE - momentum) * inverse[i]
        if i + AHEAD < len(x):
            fetch_row(means, labels[i + AHEAD])
        if share >= ZERO:
            for d in range(dim):
                means[label, d] = momentum * means[label, d] + share * x[i, d]
    return GOOD, 0, skipped
