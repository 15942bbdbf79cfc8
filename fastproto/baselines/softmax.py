"""The parametric softmax classifier: a learned linear layer and cross-entropy."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SoftmaxHead(nn.Module):
    """``cross_entropy(x Vᵀ + b, y)`` with learned V [C, D] and b [C].

    The interface is that of :class:`fastproto.PrototypeHead` as far as a trainer uses it.
    """

    def __init__(self, num_classes: int, dim: int, *, reduction: str = "mean") -> None:
        super().__init__()
        if num_classes < 2 or dim < 2:
            raise ValueError(f"num_classes is {num_classes} and dim {dim}; expected both to be at least 2")
        self.num_classes, self.dim, self.reduction = num_classes, dim, reduction
        self.linear = nn.Linear(dim, num_classes)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of features [B, D] and labels int64 [B]: a float32 scalar."""
        return nn.functional.cross_entropy(self.linear(features).float(), labels, reduction=self.reduction)

    def logits(self, features: Tensor) -> Tensor:
        """[B, C], column y is label y."""
        logits: Tensor = self.linear(features)
        return logits

    def predict(self, features: Tensor, k: int = 1) -> Tensor:
        """The k most likely labels [B, k] int64, best first."""
        return self.logits(features).topk(k, dim=1).indices

    @torch.no_grad()
    def predict_with_cosines(self, features: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        """Labels [B, k] and the cosines [B, k] between the features and their rows of V."""
        labels = self.predict(features, k)
        z = nn.functional.normalize(features.float(), dim=1)
        v = nn.functional.normalize(self.weight_by_label(), dim=1)[labels]
        return labels, (z[:, None] * v).sum(2)

    def weight_by_label(self) -> Tensor:
        """V [C, D]."""
        return self.linear.weight
