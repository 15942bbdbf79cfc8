"""Cross-entropy over the prototypes and its gradient, in blocks: no B×C matrix and no copy of the prototypes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastproto.ops.ipm_loss import LossOptions, scaled_loss
from fastproto.support.checks import check_label_range, check_positive
from fastproto.support.error_flags import BAD_ASSIGNMENT, BAD_LABEL, NOT_FINITE, flag_of
from fastproto.support.loss_options import Scale
from fastproto.support.registration import register
from fastproto.support.row_norms import compute_dtype, normalise

LARGEST_SCALE = 1e20  # up to this, loss and gradient are finite in float32
ROWS, COLUMNS = 1024, 4096  # of a block of logits: 16 MiB in float32


def check_scale(scale: object) -> Scale:
    """Check the scale of the logits, a number in (0, 1e20] or ``norm``.

    Raises:
        TypeError, ValueError: anything else.
    """
    if isinstance(scale, str):
        if scale != "norm":
            raise ValueError(f"scale is {scale!r}; expected a number > 0, such as 16, or 'norm'")
        return "norm"
    number = check_positive("scale", scale, "16")
    if number > LARGEST_SCALE:
        raise ValueError(f"scale is {number:g}; expected at most {LARGEST_SCALE:g}, such as 16")
    return number


def softmax_per_sample(
    features: Tensor, labels: Tensor, prototypes: Tensor, assignment: Tensor, options: LossOptions, scale: Scale
) -> Tensor:
    """factor · ω · cross-entropy of each sample [B], differentiable; shapes and dtypes are not checked.

    ``F.cross_entropy(left @ prototypes.T, assignment[labels], reduction="none")`` with ``left = scale *
    F.normalize(features)``, or the features themselves for ``norm``. A row with norm <= 1e-12 has the loss log C, and
    with a number as scale zero gradient. On a GPU nothing synchronises: a row with a bad label, a bad entry of the
    assignment, NaN or inf has zero loss and gradient and sets its bit of the flag; on the CPU it raises ValueError, but
    for NaN or inf with ``skip``.
    """
    number = None if isinstance(scale, str) else scale
    differentiated = features.requires_grad and torch.is_grad_enabled()
    if options.flag is None:
        options = options._replace(flag=flag_of(features.device, options.skip))
    return scaled_loss(_operator, features, labels, prototypes, assignment, options, number, differentiated)


def loss_and_gradient(
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    assignment: Tensor,
    weight: Tensor | None,
    factor: float,
    skip: bool,
    flag: Tensor | None,
    skipped: Tensor | None,
    scale: float | None,
    differentiated: bool,
) -> tuple[Tensor, Tensor]:
    """Loss [B], and its gradient [B, D] in the features' dtype, or [0, D] unless ``differentiated``; no scale: x·w."""
    on_cpu = features.device.type == "cpu"
    if on_cpu:
        check_label_range("labels", labels, len(prototypes))
        check_label_range("rows of the assignment", assignment[labels], len(prototypes))
    z, inverse = normalise(features, skip or not on_cpu)
    finite = ~inverse.isnan()
    if skipped is not None:
        skipped += (~finite).sum()
    rows, good = rows_of(labels, assignment, finite.squeeze(1), skip, flag)
    own = prototypes[rows].to(z.dtype)
    left = scale * z if scale is not None else torch.where(finite, features.to(z.dtype), 0.0)
    with torch.autocast(features.device.type, enabled=False):
        entropy, pull = _over_prototypes(left, prototypes, differentiated)
    share = good.to(z.dtype) * factor if weight is None else good.to(z.dtype) * factor * weight.to(z.dtype)
    loss = (entropy - (left * own).sum(1)).clamp_min_(0) * share  # rounding may make the difference negative
    if not differentiated:
        return loss, features.new_empty(0, features.shape[1])
    gradient = pull.sub_(own)
    if scale is not None:  # through the normalisation
        gradient = (gradient - (gradient * z).sum(1, keepdim=True) * z) * (scale * inverse.nan_to_num())
    return loss, (gradient * share[:, None]).to(features.dtype)


def rows_of(
    labels: Tensor, assignment: Tensor, finite: Tensor, skip: bool, flag: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The prototype of each label [B], 0 for a bad one, and which samples are good [B]; errors go to the flag."""
    count = len(assignment)
    known = (labels >= 0) & (labels < count)
    rows = assignment[torch.where(known, labels, 0)]
    assigned = (rows >= 0) & (rows < count)
    if flag is not None:
        flag |= BAD_LABEL * (~known).any()
        flag |= BAD_ASSIGNMENT * (known & ~assigned).any()
        flag |= (0 if skip else NOT_FINITE) * (~finite).any()
    return torch.where(assigned, rows, 0), known & assigned & finite


class _Sums(NamedTuple):
    """Of R rows: the largest logit [R, 1], Σ exp(logit - largest) [R, 1], and that sum of prototypes [R, D]."""

    largest: Tensor
    total: Tensor
    pull: Tensor


def _over_prototypes(left: Tensor, prototypes: Tensor, differentiated: bool) -> tuple[Tensor, Tensor]:
    """log Σ_k exp(left·w_k) [B] and, if ``differentiated``, the mean of w_k under the softmax [B, D]."""
    entropy, pull = left.new_empty(len(left)), torch.empty_like(left) if differentiated else left[:0]
    for begin in range(0, len(left), ROWS):
        some = slice(begin, begin + ROWS)
        sums = _sums_of_rows(left[some], prototypes, differentiated)
        entropy[some] = (sums.largest + sums.total.log()).squeeze(1)
        if differentiated:
            torch.div(sums.pull, sums.total, out=pull[some])
    return entropy, pull


def _sums_of_rows(left: Tensor, prototypes: Tensor, differentiated: bool) -> _Sums:
    largest = left.new_full((len(left), 1), -torch.inf)
    total, pull = torch.zeros_like(largest), torch.zeros_like(left)
    for w in prototypes.split(COLUMNS):
        w = w.to(left.dtype)
        logits = left @ w.T
        before, largest = largest, torch.maximum(largest, logits.amax(1, keepdim=True))
        kept = (before - largest).exp_()
        terms = logits.sub_(largest).exp_()
        total = total * kept + terms.sum(1, keepdim=True)
        if differentiated:
            pull.mul_(kept).addmm_(terms, w)
    return _Sums(largest, total, pull)


def _shapes(features: Tensor, *others: object) -> tuple[Tensor, Tensor]:
    rows = features.shape[0] if others[-1] else 0
    loss = features.new_empty(features.shape[0], dtype=compute_dtype(features))
    return loss, features.new_empty(rows, features.shape[1])


_operator = register("softmax_loss", loss_and_gradient, _shapes, mutates=["flag", "skipped"])
