"""Fixed, evenly spread prototypes with softmax cross-entropy, never reassigned."""

from __future__ import annotations

import torch
from torch import Tensor

from fastproto.baselines.base import StaticHead
from fastproto.head_state import prepare_prototypes
from fastproto.ops.ipm_loss import LossOptions
from fastproto.ops.softmax_loss import check_scale, softmax_per_sample
from fastproto.prototypes import Prototypes, estimate_prototypes
from fastproto.support.checks import check_classes, check_seed, check_width
from fastproto.support.loss_options import Reduction, Scale
from fastproto.support.options import Effort, check_options
from fastproto.support.row_norms import compute_dtype


class FixedSoftmaxHead(StaticHead):
    """``F.cross_entropy(scale * F.normalize(x) @ W[A].T, y)``: evenly spread prototypes W, a fixed random assignment A.

    The loss is that of ``PrototypeHead(loss="softmax")``, whose assignment is renewed. With the same seed, W and A are
    those of :class:`FixedHead`: only the loss differs.

    Args:
        num_classes, dim, reduction: as of :class:`CosineHead`.
        scale: a number > 0, or ``norm`` for the logits ``x @ W[A].T``, the features' own length as scale.
        prototypes: unit rows [C, D]; None estimates them.
        seed: of the estimated prototypes and of the assignment.
        effort: of the estimate: ``normal`` or ``best``, see :func:`fastproto.prototypes.estimate_prototypes`.

    Raises:
        TypeError, ValueError: as :class:`CosineHead`; prototypes of another shape, not unit or requiring grad.

    Source: compared in Table 9 of Saadabadi et al., CVPR 2024; the scale of 16 is our choice.
    """

    def __init__(
        self,
        num_classes: int,
        dim: int,
        *,
        prototypes: Tensor | Prototypes | None = None,
        scale: Scale = 16.0,
        reduction: Reduction = "mean",
        seed: int = 0,
        effort: Effort = "normal",
    ) -> None:
        num_classes, dim = check_classes(num_classes, dim)
        seed, scale = check_seed(seed), check_scale(scale)
        check_options(effort=effort)
        vectors = prepare_prototypes(
            prototypes,
            num_classes,
            dim,
            lambda: estimate_prototypes(num_classes, dim, effort=effort, seed=seed).vectors,
        )
        generator = torch.Generator(device="cpu").manual_seed(seed)
        permutation = torch.randperm(num_classes, generator=generator, device="cpu")
        factor = 1.0 if isinstance(scale, str) else scale
        super().__init__(vectors, assignment=permutation, scale=factor, reduction=reduction)
        self.logit_scale: Scale = scale

    def sample_losses(self, features: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of each sample, [B]."""
        self._heal(counted_only=True)
        return softmax_per_sample(features, labels, self.prototypes, self.assignment, LossOptions(), self.logit_scale)

    def logits(self, features: Tensor) -> Tensor:
        """``scale`` times the cosines, or x·w for ``norm``, [B, C]; column y is label y. Differentiable."""
        if self.logit_scale != "norm":
            return super().logits(features)
        check_width(features, self.dim)
        with torch.autocast(features.device.type, enabled=False):
            x = features.to(compute_dtype(features))
            return x @ self.directions().to(x.dtype).T
