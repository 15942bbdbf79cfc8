"""PSC: the parametric softmax classifier on the sphere, learned rows and cross-entropy over scaled cosines."""

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
        num_classes, dim, scale, reduction: as of :class:`CosineHead`. The paper states no scale for its PSC; 16 lets
            the loss of 1,000 classes come within 0.001 of zero where the rows form a simplex.
        chunked: take ``torch.nn.functional.linear_cross_entropy`` in pieces, so that no B×C matrix is stored (torch
            2.13 or newer). It is for GPUs whose memory is short: one CPU thread needed 3 times as long with it at
            B = 256, D = 64, C = 20,000 and 10 times at 512, 128, 50,000, for hardly any less memory.

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
        torch_new: Any = F  # older versions that are supported too have no such function
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
