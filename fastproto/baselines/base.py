"""Base classes of the baselines: the interface of :class:`fastproto.PrototypeHead`, for cosines with C rows."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastproto.functional import ipm_loss, nearest_prototypes
from fastproto.ops.mixup import check_mixup, mixed, second_weight
from fastproto.support.checks import (
    check_classes,
    check_label_range,
    check_labels,
    check_positive,
    check_weight,
    check_width,
)
from fastproto.support.distributed import in_process_group, sum_for_ddp
from fastproto.support.error_flags import flag_of
from fastproto.support.guarded_module import GuardedState
from fastproto.support.loss_options import IpmLoss, Reduction
from fastproto.support.options import check_options
from fastproto.support.row_norms import compute_dtype, not_finite, unit
from fastproto.support.tracing import recording


class CosineHead(nn.Module):
    """``F.cross_entropy(scale * F.normalize(x) @ F.normalize(V).T, y)`` with V [C, D] = ``weight_by_label()``.

    A subclass defines V and may replace the loss.

    Args:
        num_classes: C >= 2.
        dim: D >= 2, the width of the features.
        scale: factor on the cosines, > 0; 1 / temperature.
        reduction: ``mean``, ``sum`` or ``none``. With several ranks, ``sum`` is scaled so that DDP's gradient averaging
            leaves it a sum; ``mean`` is over the rank's own batch.

    Raises:
        ValueError: C < 2, D < 2, an unknown reduction, a scale that is not positive.
    """

    def __init__(self, num_classes: int, dim: int, *, scale: float = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__()
        num_classes, dim = check_classes(num_classes, dim)
        scale = check_positive("scale", scale, "16")
        check_options(reduction=reduction)
        self.num_classes, self.dim, self.scale = num_classes, dim, scale
        self.reduction: Reduction = reduction

    def weight_by_label(self) -> Tensor:
        """[C, D]: row y stands for label y."""
        raise NotImplementedError

    def directions(self) -> Tensor:
        """Unit rows [C, D] of :meth:`weight_by_label`, in float32 at least."""
        return F.normalize(at_least_float32(self.weight_by_label()), dim=1)

    def sample_losses(self, features: Tensor, labels: Tensor) -> Tensor:
        """The loss of each sample, [B]."""
        return F.cross_entropy(self.logits(features), labels, reduction="none")

    def regulariser(self) -> Tensor | float:
        """The term of the loss that does not depend on the samples."""
        return 0.0

    def forward(
        self,
        features: Tensor,
        labels: Tensor,
        weight: Tensor | None = None,
        *,
        labels2: Tensor | None = None,
        lam: float | Tensor | None = None,
        weight2: Tensor | None = None,
        update_means: bool = True,
    ) -> Tensor:
        """The loss of a batch, with the arguments of :meth:`fastproto.PrototypeHead.forward`.

        Args:
            features: [B, D], any float dtype.
            labels: int64 [B] in 0..C-1.
            weight: [B], a factor for each sample.
            labels2, lam: mixup: the loss is ``lam``·L(labels) + (1-``lam``)·L(labels2), ``lam`` in [0, 1] a number,
                [B] or [B, 1].
            weight2: mixup: [B], the factors of L(labels2); None: those of ``weight``.
            update_means: has no effect: these heads keep no class means.

        Returns:
            float32 (float64 for float64 features): a scalar, or [B] for ``none``. The samples of an empty batch add 0.

        Raises:
            TypeError, ValueError: shapes that do not match, labels that are not int64; on the CPU also labels out of
                range and NaN or inf in the features (on a GPU, checking values would synchronise).
        """
        self._check(features, labels, weight)
        flag = None if lam is None else flag_of(features.device)
        mixup = check_mixup(labels, labels2, lam, self.num_classes, flag)
        weight2 = second_weight(weight, weight2, mixup)
        loss = weighted(self.sample_losses(features, labels), weight)
        if mixup is not None:
            loss = mixed(loss, weighted(self.sample_losses(features, mixup.labels2), weight2), mixup)
        if self.reduction == "mean":
            loss = loss.sum() / max(len(labels), 1)
        elif self.reduction == "sum":
            loss = sum_for_ddp(loss) if self.training and in_process_group() else loss.sum()
        return loss + self.regulariser()

    def _check(self, features: Tensor, labels: Tensor, weight: Tensor | None) -> None:
        self._check_features(features)
        check_labels("labels", labels, len(features))
        check_weight(weight, labels)
        if features.device.type == "cpu":
            check_label_range("labels", labels, self.num_classes)

    def _check_features(self, features: Tensor) -> None:
        check_width(features, self.dim)
        if features.device.type == "cpu" and not recording():
            norm = torch.linalg.vector_norm(features.detach().to(compute_dtype(features)), dim=1)
            if not bool(norm.isfinite().all()):
                raise not_finite(int((~norm.isfinite()).nonzero()[0]))

    def logits(self, features: Tensor) -> Tensor:
        """``scale`` times the cosines, [B, C]; column y is label y. Differentiable."""
        check_width(features, self.dim)
        with torch.autocast(features.device.type, enabled=False):
            z = unit(features)
            return self.scale * z @ self.directions().to(z.dtype).T

    def predict(self, features: Tensor, k: int = 1) -> Tensor:
        """The k most likely labels [B, k] int64, best first."""
        return self.predict_with_cosines(features, k)[0]

    @torch.no_grad()
    def predict_with_cosines(self, features: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        """The k most likely labels [B, k] int64, best first, and their cosines [B, k], without a B×C matrix."""
        cosines, labels = nearest_prototypes(features, self.directions(), k)
        return labels, cosines


class StaticHead(GuardedState, CosineHead):
    """Fixed prototypes and a fixed assignment; no trainable parameters.

    Buffers (both in ``state_dict``): ``prototypes`` [C, D] float32 unit rows and ``assignment`` [C] int64.
    """

    def __init__(
        self, prototypes: Tensor, *, assignment: Tensor | None = None, scale: float = 1.0, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(*prototypes.shape, scale=scale, reduction=reduction)
        self.register_buffer("prototypes", prototypes)
        if assignment is None:
            assignment = torch.arange(len(prototypes))
        self.register_buffer("assignment", assignment.to(prototypes.device))
        self._keep()

    def directions(self) -> Tensor:
        """:meth:`weight_by_label`, whose rows are already unit."""
        return self.weight_by_label()

    def pull(self, features: Tensor, labels: Tensor, loss: IpmLoss) -> Tensor:
        """:func:`fastproto.ipm_loss` of each sample, [B]; ``loss`` is ``eq6`` or ``official``."""
        self._heal(counted_only=True)
        return ipm_loss(features, labels, self.prototypes, self.assignment, reduction="none", loss=loss)


def weighted(losses: Tensor, weight: Tensor | None) -> Tensor:
    """The losses [B] times their factors, in the dtype of the losses."""
    return losses if weight is None else losses * weight.to(losses.dtype)


def at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
