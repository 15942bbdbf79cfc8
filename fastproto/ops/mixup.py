"""Mixup: samples with two labels each, and the share λ of the first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastproto.support.checks import check_label_range, check_labels, check_weight, real, shape_of
from fastproto.support.error_flags import BAD_SHARE

Share = float | Tensor


class Mixup(NamedTuple):
    """The second label of each sample, and the shares λ and 1-λ of the two, numbers or [B]."""

    labels2: Tensor
    share: Share
    share2: Share


def check_mixup(
    labels: Tensor, labels2: Tensor | None, lam: float | Tensor | None, num_classes: int, flag: Tensor | None
) -> Mixup | None:
    """The checked mixup arguments of a head, or None if both ``labels2`` and ``lam`` are None.

    Raises:
        TypeError, ValueError: one without the other, shares that :func:`check_share` refuses, labels that are not
            int64 [B]; on the CPU also labels outside 0..C-1.
    """
    if labels2 is None and lam is None:
        return None
    if labels2 is None or lam is None:
        raise ValueError("labels2 and lam go together; expected both for mixup, or neither")
    for name, given in (("labels", labels), ("labels2", labels2)):
        check_labels(name, given, len(labels))
        if given.device.type == "cpu" and not torch.compiler.is_compiling():
            check_label_range(name, given, num_classes)
    return Mixup(labels2, *check_share(lam, labels, flag))


def second_weight(weight: Tensor | None, weight2: Tensor | None, mixup: Mixup | None) -> Tensor | None:
    """The factors of the second label's losses: ``weight2``, or ``weight`` where there are none of their own.

    Raises:
        TypeError, ValueError: ``weight2`` without mixup, or what is refused of a ``weight``.
    """
    if weight2 is None:
        return weight
    if mixup is None:
        raise ValueError("weight2 is given without labels2; expected both for mixup, or neither")
    check_weight(weight2, mixup.labels2, "weight2")
    return weight2


def check_share(lam: object, labels: Tensor, flag: Tensor | None) -> tuple[Share, Share]:
    """λ and 1-λ, numbers or [B], for the loss ``λ·L(labels) + (1-λ)·L(labels2)``.

    On a GPU checking values would synchronise: there a bad share makes both zero and sets a bit of ``flag``.

    Args:
        lam: a number, a tensor of one number, or a tensor [B] or [B, 1], of any float dtype; integers are 0 or 1.
        labels: int64 [B].
        flag: int32 [1], or None.

    Raises:
        TypeError, ValueError: another type, dtype or shape; on the CPU also NaN or shares outside [0, 1].
    """
    if not isinstance(lam, Tensor):
        if isinstance(lam, (Sequence, np.ndarray)) and not isinstance(lam, str):
            raise TypeError(
                f"lam is a {type(lam).__name__}; expected a number or a tensor of shares in [0, 1], one for each "
                "sample: pass torch.as_tensor(lam)"
            )
        number = real("lam", lam)
        if not 0 <= number <= 1:
            raise ValueError(f"lam is {number}; expected a share in [0, 1]")
        return number, 1 - number
    if lam.is_complex() or lam.dtype == torch.bool or lam.layout != torch.strided:
        raise TypeError(f"lam is a {lam.dtype} tensor; expected shares in [0, 1], floating-point")
    count = len(labels)
    if lam.shape not in ((), (1,), (count,), (count, 1)):
        raise ValueError(f"lam has shape {shape_of(lam)}; expected a number or [{count}], one for each sample")
    share = lam.reshape(count) if lam.numel() == count else lam.reshape(())
    dtype = torch.float64 if lam.dtype == torch.float64 else torch.float32
    share = share.to(labels.device, dtype)
    good = (share >= 0) & (share <= 1)  # False for NaN
    if share.device.type == "cpu" and not torch.compiler.is_compiling():
        if not bool(good.all()):
            at = int((~good).nonzero()[0]) if share.ndim else 0
            value = float(share[at] if share.ndim else share)
            raise ValueError(f"lam is {value} (first in row {at}); expected shares in [0, 1]")
        return share, 1 - share
    if flag is not None:
        flag |= BAD_SHARE * ~good.all()
    return torch.where(good, share, 0), torch.where(good, 1 - share, 0)


def mixed(first: Tensor, second: Tensor, mixup: Mixup) -> Tensor:
    """λ·first + (1-λ)·second [B] in the dtype of the losses."""
    share, share2 = (x.to(first.dtype) if isinstance(x, Tensor) else x for x in (mixup.share, mixup.share2))
    return share * first + share2 * second


def label_of_larger_share(labels: Tensor, mixup: Mixup) -> Tensor:
    """The label of the larger share of each sample, the first of equals."""
    if isinstance(mixup.share, Tensor):
        return torch.where(mixup.share >= 0.5, labels, mixup.labels2)
    return labels if mixup.share >= 0.5 else mixup.labels2
