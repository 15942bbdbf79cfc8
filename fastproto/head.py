"""PrototypeHead: prototypes, assignment and class means as one ``nn.Module`` in place of a classifier's last layer."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastproto.cpu.huge_pages import ask_for_large_pages
from fastproto.head_state import RenewableState, initial_means, prepare_prototypes
from fastproto.ops.head_step import head_step_
from fastproto.ops.ipm_loss import LossOptions, check_ipm
from fastproto.ops.loss_forms import loss_form
from fastproto.ops.mixup import check_mixup, label_of_larger_share, mixed, second_weight
from fastproto.ops.nearest_prototypes import nearest
from fastproto.ops.update_class_means import move_means_, move_official_means_
from fastproto.prototypes import Prototypes, estimate_prototypes
from fastproto.support.checks import (
    check_classes,
    check_momentum,
    check_seed,
    check_width,
    default_device,
)
from fastproto.support.distributed import (
    Gathering,
    all_counts,
    in_process_group,
    mean_for_ddp,
    sum_for_ddp,
)
from fastproto.support.error_flags import new_flag
from fastproto.support.guarded_module import exclude_from_broadcast
from fastproto.support.loss_options import Loss, Means, NanPolicy, Power, Reduction, Scale
from fastproto.support.options import Effort, check_options
from fastproto.support.row_norms import unit
from fastproto.support.tracing import after_backward, in_backward

__all__ = ["PrototypeHead", "exclude_from_broadcast"]


class _Batch(NamedTuple):
    """The arguments of :meth:`PrototypeHead.forward`."""

    features: Tensor
    labels: Tensor
    weight: Tensor | None
    labels2: Tensor | None
    lam: float | Tensor | None
    weight2: Tensor | None


class PrototypeHead(RenewableState):
    """Loss, prediction and re-assignment for fixed prototypes; the head has no trainable parameters.

    Training: ``loss = head(backbone(images), labels)`` each step and ``head.reassign()`` from time to time. Inference:
    ``head.predict(features)``.

    Args:
        num_classes: C >= 2.
        dim: D >= 2, the width of the features.
        prototypes: unit rows [C, D] (a tensor or :class:`Prototypes`); None loads them from the cache or estimates
            them, in a process group on rank 0 alone. On the meta device nothing is estimated.
        momentum: α of the class means, in [0, 1).
        loss: ``eq6``; ``power`` for (1 - cos)^p / p; ``softmax`` for the cross-entropy over all prototypes, whose cost
            grows with C; ``official`` (the authors' (1 - cos)²). Means and assignment do not depend on it.
        power: p of ``power``, 0.01 to 100 (2 is Eq. 6, see :func:`fastproto.ipm_loss`), or ``auto``, that of
            :func:`fastproto.functional.power_for`.
        scale: of ``softmax`` (None: 16): a number > 0 times the cosines as logits, or ``norm``: logits x·w.
        means: ``ema`` starts at zero and averages every sample in batch order; ``official`` (the authors' code) starts
            at random unit rows, averages only the last sample of each class in a batch, ignores ``momentum`` (α is
            0.95) and keeps the rows unit.
        reduction: ``mean``, ``sum`` or ``none``. With several ranks, ``mean`` and ``sum`` are scaled so that DDP's
            gradient averaging gives the gradient of a single process with the samples of all ranks.
        sync_class_means: with several ranks, update the means with the samples of all ranks, gathered during backward.
            False gathers nothing: each rank averages its own samples, and assignments come from rank 0's means.
        seed: of the estimated prototypes, the initial assignment and the ``official`` means.
        effort: of the estimate of the prototypes: ``normal`` or ``best``, see
            :func:`fastproto.prototypes.estimate_prototypes`.
        nan_policy: ``raise``, or ``skip``: samples with NaN or inf have zero loss and gradient, do not change the means
            and are counted in ``skipped``. ``mean`` still divides by the whole batch.

    Buffers (all in ``state_dict``; float32 and int64, also after ``.half()``): ``prototypes`` [C, D], ``assignment``
    [C], ``class_means`` [C, D], ``prices`` [C], ``updates`` [] (updates of the class means so far). Not in
    ``state_dict``: ``skipped`` int64 [], the samples that ``nan_policy="skip"`` left out since the head was made or
    loaded.

    On the CPU a bad batch raises at once. On Triton (CUDA tensors) a step does not synchronise with the device, except
    to exchange the batch sizes of several ranks: bad samples are left out, and :meth:`check_batches`, :meth:`reassign`,
    :meth:`align` and ``state_dict`` report them later.

    Raises:
        TypeError, ValueError: C < 2, D < 2, prototypes of another shape, not unit or requiring grad, unknown options,
            a power or a scale with a loss that has none, the power ``auto`` on the meta device.

    Source: Algorithm 1 of Saadabadi et al., CVPR 2024.
    """

    updates: Tensor
    skipped: Tensor

    def __init__(
        self,
        num_classes: int,
        dim: int,
        *,
        prototypes: Tensor | Prototypes | None = None,
        momentum: float = 0.9,
        loss: Loss = "eq6",
        power: Power | None = None,
        scale: Scale | None = None,
        means: Means = "ema",
        reduction: Reduction = "mean",
        sync_class_means: bool = True,
        seed: int = 0,
        nan_policy: NanPolicy = "raise",
        effort: Effort = "normal",
    ) -> None:
        super().__init__()
        num_classes, dim = check_classes(num_classes, dim)
        momentum, seed = check_momentum(momentum), check_seed(seed)
        check_options(loss=loss, means=means, reduction=reduction, nan_policy=nan_policy, effort=effort)
        self.num_classes, self.dim, self.momentum = num_classes, dim, momentum
        self.loss: Loss = loss
        loss_form(loss, power, scale)  # checks them before prototypes are estimated
        self.means: Means = means
        self.reduction: Reduction = reduction
        self.nan_policy: NanPolicy = nan_policy
        self.sync_class_means = sync_class_means
        self._arriving: Gathering | None = None  # samples of all ranks, not yet in the means
        generator = torch.Generator(device="cpu").manual_seed(seed)
        permutation = torch.randperm(num_classes, generator=generator, device="cpu")
        start = initial_means(means, num_classes, dim, generator)
        device = default_device()
        vectors = prepare_prototypes(
            prototypes,
            num_classes,
            dim,
            lambda: estimate_prototypes(num_classes, dim, effort=effort, seed=seed).vectors,
        )
        self.form = loss_form(loss, power, scale, vectors)
        self.register_buffer("prototypes", ask_for_large_pages(torch.empty_like(vectors)).copy_(vectors))
        self.register_buffer("assignment", permutation.to(device))
        self.register_buffer("class_means", start.to(device))
        self.register_buffer("prices", torch.zeros(num_classes, device=device, dtype=torch.float32))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64, device=device))
        self.register_buffer("skipped", torch.zeros((), dtype=torch.int64, device=device), persistent=False)
        self.register_buffer("flag", new_flag(device), persistent=False)
        self._keep()

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
        """The loss of a batch; in training mode it also updates the class means, by all ranks' samples in rank order.

        With several ranks the samples of the others arrive during backward, and the means are updated when it ends
        (without a backward pass: when the head next needs them, or by :meth:`settle`). The update goes to the module's
        own buffers, also if ``torch.func.functional_call`` passed others to this call.

        Args:
            features: [B, D], any float dtype.
            labels: int64 [B].
            weight: [B], a factor for each sample.
            labels2, lam: mixup: the loss is ``lam``·L(labels) + (1-``lam``)·L(labels2), ``lam`` in [0, 1] a number,
                [B] or [B, 1]; in the means each sample counts for the label of its larger share.
            weight2: mixup: [B], the factors of L(labels2); None: those of ``weight``.
            update_means: False leaves the class means unchanged.

        Returns:
            float32 (float64 for float64 features): a scalar, or [B] for ``reduction="none"``.

        Raises:
            TypeError, ValueError: shapes or dtypes that do not match, ``labels2`` without ``lam``; on the CPU also
                labels or ``lam`` out of range, and NaN or inf in the features unless ``nan_policy`` is ``skip``.
        """
        self._heal(counted_only=True)
        # Activation checkpointing runs forward again inside backward: this batch has been counted already.
        moves_means = self.training and update_means and not in_backward()
        batch = _Batch(features, labels, weight, labels2, lam, weight2)
        if self.training and in_process_group():
            return self._forward_on_ranks(batch, moves_means)
        fused = moves_means and self.means == "ema" and labels2 is None and self.loss != "softmax"
        losses, counted = self._losses(batch, averaged=self.reduction == "mean", fused=fused)
        if moves_means and not fused:
            self._move_means(features, counted)
        return losses if self.reduction == "none" else losses.sum()

    def _forward_on_ranks(self, batch: _Batch, moves_means: bool) -> Tensor:
        """:meth:`forward` in training with several ranks: exchanges the batch sizes, which synchronises."""
        features, labels = batch.features, batch.labels
        try:
            losses, counted = self._losses(batch, averaged=False, fused=False)
        except (TypeError, ValueError):  # tell the other ranks, which would otherwise wait until the group times out
            all_counts(-1, features.device)
            raise
        counts = all_counts(len(labels), features.device)
        if moves_means and self.sync_class_means:
            self.settle()
            self._arriving = Gathering(features.detach(), counted, counts)
            if losses.requires_grad:
                losses.register_hook(self._settle_after_backward)
        elif moves_means:
            self._move_means(features, counted)
        if self.reduction == "none":
            return losses
        return mean_for_ddp(losses, counts) if self.reduction == "mean" else sum_for_ddp(losses)

    def _losses(self, batch: _Batch, *, averaged: bool, fused: bool) -> tuple[Tensor, Tensor]:
        """The losses [B], divided by B if ``averaged``, and the labels [B] under which the means count the samples.

        ``fused``: the same operator updates the class means.
        """
        features, labels, weight, labels2, lam, weight2 = batch
        prototypes, assignment, skip = self.prototypes, self.assignment, self.nan_policy == "skip"
        check_ipm(features, labels, prototypes, assignment, weight)
        mixup = check_mixup(labels, labels2, lam, self.num_classes, self.flag)
        weight2 = second_weight(weight, weight2, mixup)
        factor = self.form.factor / (max(len(features), 1) if averaged else 1)
        options = LossOptions(weight, factor, skip, self.flag, self.skipped if skip and not in_backward() else None)
        if fused:
            losses = head_step_(
                features, labels, prototypes, assignment, options, self.class_means, self.momentum, self.form.power
            )
            if len(labels):
                self.updates.add_(1)
            return losses, labels
        losses = self.form.per_sample(features, labels, prototypes, assignment, options)
        if mixup is None:
            return losses, labels
        options = LossOptions(weight2, factor, skip, self.flag)  # without ``skipped``: each sample is counted once
        second = self.form.per_sample(features, mixup.labels2, prototypes, assignment, options)
        return mixed(losses, second, mixup), label_of_larger_share(labels, mixup)

    @torch.no_grad()
    def _move_means(self, features: Tensor, labels: Tensor) -> None:
        if len(labels) == 0:
            return
        features = features.detach()
        if self.means == "ema":
            skip = self.nan_policy == "skip"
            move_means_(self.class_means, features, labels, self.momentum, skip, self.flag)
        else:
            move_official_means_(self.class_means, features, labels)
        self.updates.add_(1)

    @torch.no_grad()
    def settle(self) -> None:
        """Update the class means with the samples that are still being gathered from all ranks, if any."""
        arriving, self._arriving = self._arriving, None
        if arriving is not None:
            self._move_means(*arriving.wait())

    def _settle_after_backward(self, _gradient: Tensor) -> None:
        after_backward(self.settle)

    def logits(self, features: Tensor) -> Tensor:
        """Cosines [B, C] of each sample with the prototype of each *label*, column y label y, under every loss.

        Differentiable.

        ``features`` are [B, D] of any float dtype; the cosines are float32 (float64 for float64 features).

        Raises:
            TypeError, ValueError: features that are not [B, D] floating-point numbers.
        """
        self._sound()
        check_width(features, self.dim)
        with torch.autocast(features.device.type, enabled=False):
            z = unit(features)
            return z @ self.weight_by_label().to(z.dtype).T

    def predict(self, features: Tensor, k: int = 1) -> Tensor:
        """The k most likely labels [B, k] int64 of features [B, D], best first; see :meth:`predict_with_cosines`."""
        return self.predict_with_cosines(features, k)[0]

    def predict_with_cosines(self, features: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        """The k most likely labels [B, k] int64, best first, and the cosines [B, k] with their prototypes.

        Needs no B×C matrix. ``features`` are [B, D] of any float dtype, and k is 1..C.

        Raises:
            TypeError, ValueError: shapes, dtypes, k out of range; on the CPU also NaN or inf in the features.
        """
        self._sound()
        cosines, rows = nearest(features, self.prototypes, k, self.flag)
        return self._label_of_row()[rows], cosines

    def extra_repr(self) -> str:
        chosen = {"power": f", power={self.form.power}", "softmax": f", scale={self.form.scale!r}"}.get(self.loss, "")
        return f"num_classes={self.num_classes}, dim={self.dim}, loss={self.loss!r}{chosen}, means={self.means!r}"
