"""PSC*: the softmax classifier with a uniformity penalty on its rows."""

from __future__ import annotations

from torch import Tensor

from fastproto.baselines.base import at_least_float32
from fastproto.baselines.softmax import SoftmaxHead
from fastproto.functional import uniformity_loss
from fastproto.support.checks import check_positive, real
from fastproto.support.loss_options import Reduction


class SoftmaxUniformHead(SoftmaxHead):
    """``F.cross_entropy(scale * F.normalize(x) @ F.normalize(V).T, y) + uniformity_weight * uniformity_loss(V, t=t)``.

    L_uni costs a pass over all C² pairs of rows in every step. It is added after the reduction (for ``none`` to every
    sample's loss, whose mean is then the loss of ``mean``).

    Args:
        num_classes, dim, scale, reduction, chunked: as of :class:`SoftmaxHead`.
        uniformity_weight: λ >= 0.
        t: sharpness of L_uni, > 0.

    Raises:
        ValueError: as :class:`SoftmaxHead`; a negative weight.

    Source: the "PSC*" of Saadabadi et al., CVPR 2024, with L_uni of its Eq. 4; λ = 1 is our choice.
    """

    def __init__(
        self,
        num_classes: int,
        dim: int,
        *,
        uniformity_weight: float = 1.0,
        t: float = 2.0,
        scale: float = 16.0,
        reduction: Reduction = "mean",
        chunked: bool = False,
    ) -> None:
        super().__init__(num_classes, dim, scale=scale, reduction=reduction, chunked=chunked)
        uniformity_weight, t = real("uniformity_weight", uniformity_weight), check_positive("t", t, "2.0")
        if not 0 <= uniformity_weight < float("inf"):
            raise ValueError(f"uniformity_weight is {uniformity_weight}; expected a number >= 0, such as 1")
        self.uniformity_weight, self.t = uniformity_weight, t

    def regulariser(self) -> Tensor:
        """λ·L_uni of the learned rows."""
        return self.uniformity_weight * uniformity_loss(at_least_float32(self.weight), t=self.t)
