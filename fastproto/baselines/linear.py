"""The usual last layer of a classifier: a learned linear layer and cross-entropy, without normalisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastproto.baselines.base import CosineHead, at_least_float32
from fastproto.support.checks import check_finite, check_k, check_width
from fastproto.support.loss_options import Reduction
from fastproto.support.row_norms import unit
from fastproto.support.tracing import recording, tracing


class LinearHead(CosineHead):
    """``F.cross_entropy(x @ V.T + b, y)`` with learned V [C, D] and b [C].

    Args:
        num_classes, dim, reduction: as of :class:`CosineHead`.

    Raises:
        ValueError: C < 2, D < 2, an unknown reduction.
    """

    def __init__(self, num_classes: int, dim: int, *, reduction: Reduction = "mean") -> None:
        super().__init__(num_classes, dim, reduction=reduction)
        self.linear = nn.Linear(self.dim, self.num_classes)

    def logits(self, features: Tensor) -> Tensor:
        """[B, C] in float32 at least, column y is label y."""
        check_width(features, self.dim)
        weight, bias = self.linear.weight, self.linear.bias
        dtype = torch.promote_types(features.dtype, weight.dtype)  # autocast may still lower it
        return at_least_float32(F.linear(features.to(dtype), weight.to(dtype), bias.to(dtype)))

    def _check_features(self, features: Tensor) -> None:
        """Only finite values are needed: the loss takes no norm, so squares may overflow."""
        check_width(features, self.dim)
        if features.device.type == "cpu" and not recording():
            check_finite("features", features)

    @torch.no_grad()
    def predict_with_cosines(self, features: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        """The k most likely labels [B, k] int64, best first, and the features' cosines [B, k] with their rows."""
        if not tracing():
            k = check_k(k, self.num_classes)
            self._check_features(features)
        labels = self.logits(features).topk(k, dim=1).indices
        z = unit(features)
        return labels, (z[:, None] * self.directions()[labels]).sum(2)

    def weight_by_label(self) -> Tensor:
        """V [C, D]."""
        return self.linear.weight
