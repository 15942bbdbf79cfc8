"""The loss and its gradient on the CPU: numba reads each row of features once and makes no temporary."""

# compiled functions have no Python types, and nobody passes the first parameter of an intrinsic
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call,call-arg"

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastproto.cpu.intrinsics import fetch
from fastproto.cpu.numba_cache import compiled
from fastproto.cpu.row_helpers import AHEAD, GOOD, ONE, REORDER, ZERO, fetch_row, inverse_norm
from fastproto.support.checks import check_finite, check_label_range, not_unit, unit_tolerance
from fastproto.support.error_flags import BAD_ASSIGNMENT, BAD_LABEL, NOT_FINITE, NOT_UNIT
from fastproto.support.loss_options import EQ6_POWER
from fastproto.support.row_norms import AT_TARGET as AT_TARGETS
from fastproto.support.row_norms import not_finite

HALF, TWO = np.float32(0.5), np.float32(2)
AT_TARGET = np.float32(AT_TARGETS[torch.float32])
NEAR = np.float32(1 / 16)  # a larger 1 - cos loses at most 2e-6 of itself to cancellation


def ipm_loss(
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    assignment: Tensor,
    weight: Tensor | None,
    factor: float,
    skip: bool,
    skipped: Tensor | None,
    power: float,
) -> tuple[Tensor, Tensor]:
    """Loss [B] float32 and gradient [B, D] in the features' dtype; ``skipped`` int64 [] grows by the skipped rows.

    Raises:
        ValueError: a label or row of the assignment out of range, a prototype that is not unit, NaN or inf.
    """
    loss = torch.empty(len(features), dtype=torch.float32, device="cpu")  # torch's defaults may differ
    gradient = torch.empty(features.shape, dtype=torch.float32, device="cpu")
    x, w = (tensor.detach().float().contiguous().numpy() for tensor in (features, prototypes))
    omega = loss[:0] if weight is None else weight.detach().float().contiguous()
    wrong, row, count = _ipm_rows(
        x,
        labels.contiguous().numpy(),
        w,
        assignment.contiguous().numpy(),
        omega.numpy(),
        np.float32(factor),
        np.float32(unit_tolerance(prototypes.dtype)),
        skip,
        None if power == EQ6_POWER else np.float32(power),
        loss.numpy(),
        gradient.numpy(),
    )
    if wrong == BAD_LABEL:
        check_label_range("labels", labels, len(prototypes))
    elif wrong == BAD_ASSIGNMENT:
        check_label_range("rows of the assignment", assignment, len(prototypes))
    elif wrong == NOT_UNIT:
        check_finite("prototypes", prototypes)
        raise not_unit("prototypes", prototypes, row)
    elif wrong == NOT_FINITE:
        raise not_finite(row)
    if skipped is not None:
        skipped += count
    return loss, gradient.to(features.dtype)


@compiled(fastmath=REORDER)
def _half_squared_distance(x, i, prototypes, row, inverse):
    """½‖z - w‖² as a sum of squared differences, from the matrices: a view of a row takes longer than a short row."""
    total = ZERO
    for d in range(x.shape[1]):
        apart = x[i, d] * inverse - prototypes[row, d]
        total += apart * apart
    return HALF * total


@compiled(fastmath=REORDER)
def _power_loss(residual, power):
    """residual^p / p and its derivative residual^(p-1); zeros at the target."""
    if residual <= AT_TARGET:
        return ZERO, ZERO
    if power == ONE:
        return residual, ONE
    if power == HALF:
        root = np.sqrt(residual)
        return TWO * root, ONE / root
    steepness = residual ** (power - ONE)
    return steepness * residual / power, steepness


@compiled(fastmath=REORDER)
def _ipm_rows(x, labels, prototypes, assignment, weight, factor, tolerance, skip, power, loss, gradient):
    """Write loss [B] and gradient [B, D] of factor · ω · (1 - cos)^p / p; return error, its row and rows skipped.

    An empty weight stands for ones; ``tolerance`` is that of ‖w‖ = 1; ``skip``: rows that are not finite have zero loss
    and gradient; ``power`` is None for Eq. 6, which is compiled without the code of the other powers.
    """
    dim, count, skipped = x.shape[1], len(prototypes), 0
    entries = assignment.reshape(-1, 1)
    for i in range(len(x)):
        if labels[i] < 0 or labels[i] >= count:
            return BAD_LABEL, i, skipped
        row = assignment[labels[i]]
        if row < 0 or row >= count:
            return BAD_ASSIGNMENT, i, skipped
        if i + 2 * AHEAD < len(x) and 0 <= labels[i + 2 * AHEAD] < count:  # the row's number is prefetched first
            fetch(entries, labels[i + 2 * AHEAD], 0)
        if i + AHEAD < len(x) and 0 <= labels[i + AHEAD] < count:
            fetch_row(prototypes, assignment[labels[i + AHEAD]])
        xx, xw, ww = ZERO, ZERO, ZERO
        for d in range(dim):
            xx += x[i, d] * x[i, d]
            xw += x[i, d] * prototypes[row, d]
            ww += prototypes[row, d] * prototypes[row, d]
        if not abs(np.sqrt(ww) - ONE) <= tolerance:
            return NOT_UNIT, row, skipped
        inverse = inverse_norm(xx)
        if inverse < ZERO:
            if not skip:
                return NOT_FINITE, i, skipped
            skipped += 1
            loss[i] = ZERO
            gradient[i] = ZERO
            continue
        cosine = xw * inverse
        scale = factor * weight[i] if len(weight) else factor
        if power is None:
            slope = scale * (cosine - ONE) * inverse
            loss[i] = HALF * scale * (cosine - ONE) * (cosine - ONE)
            along = slope * cosine * inverse
            for d in range(dim):
                gradient[i, d] = slope * prototypes[row, d] - along * x[i, d]
        else:
            residual = HALF * (ONE + ww) - cosine if inverse > ZERO else ONE  # ½‖z - w‖², or 1 for a zero row
            if residual <= NEAR:
                residual = _half_squared_distance(x, i, prototypes, row, inverse)
            value, steepness = _power_loss(residual, power)
            slope = -scale * steepness * inverse
            loss[i] = scale * value
            along = cosine * inverse  # without the slope, with which it may overflow or underflow
            for d in range(dim):
                gradient[i, d] = slope * (prototypes[row, d] - along * x[i, d])
    return GOOD, 0, skipped
