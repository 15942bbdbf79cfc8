"""PSC: the parametric softmax classifier on the sphere, cross-entropy over scaled cosines with learned rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastproto.baselines.base import CosineHead
from fastproto.support.loss_options import Reduction
from fastproto.support.row_norms import unit


class SoftmaxHead(CosineHead):
    """``F.cross_entropy(scale * F.normalize(x) @ F.normalize(V).T, y)`` with learned V [C, D] = ``weight``, no bias.

    Args:
        num_classes, dim, scale, reduction: as of :class:`CosineHead`. The paper states no scale for its PSC; with
            16 the loss of 1,000 classes whose rows form a simplex can fall below 0.001.
        chunked: use ``torch.nn.functional.linear_cross_entropy``, which stores no B×C matrix (torch 2.13 or newer). For
            GPUs short of memory: on a CPU it takes at least 3 times as long and saves hardly any memory.

    Raises:
        ValueError: as :class:`CosineHead`; ``chunked`` with a torch that has no ``linear_cross_entropy``.

    Source: the "PSC" of Saadabadi et al., CVPR 2024; unit rows and features as Wang et al., NormFace, ACM MM 2017.
    """

    def __init__(
        self, num_classes: int, dim: int, *, scale: float = 16.0, reduction: Reduction = "mean", chunked: bool = False
    ) -> None:
        super().__init__(num_classes, dim, scale=scale, reduction=reduction)
        num_classes, dim = self.num_classes, self.dim
        if chunked and not hasattr(F, "linear_cross_entropy"):
            raise ValueError(
                f"chunked is True and torch is {torch.__version__}; expected one with linear_cross_entropy, 2.13 or "
                "newer: update torch or leave chunked out"
            )
        self.chunked = chunked
        self.weight = nn.Parameter(F.normalize(torch.randn(num_classes, dim), dim=1))

    def weight_by_label(self) -> Tensor:
        """V [C, D]."""
        return self.weight

    def sample_losses(self, features: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of each sample, [B]."""
        if not self.chunked:
            return super().sample_losses(features, labels)
        torch_new: Any = F  # older supported versions lack the function
        options: Any = nn
        with torch.autocast(features.device.type, enabled=False):
            z = unit(features)
            losses: Tensor = torch_new.linear_cross_entropy(
                self.scale * z,
                self.directions().to(z.dtype),
                labels,
                reduction="none",
                options=options.LinearCrossEntropyOptions(),
            )
            return losses
