"""PrototypeHead: prototypes, assignment and class means as one ``nn.Module`` in place of a classifier's last layer."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fastproto.assignment import Alignment, Assignment, align, assign, in_background
from fastproto.cpu.huge_pages import ask_for_large_pages
from fastproto.ops.head_step import head_step_
from fastproto.ops.ipm_loss import check_ipm, ipm_per_sample
from fastproto.ops.mixup import check_share, check_two_labels, larger, mixed
from fastproto.ops.nearest_prototypes import nearest
from fastproto.ops.update_class_means import move_means_
from fastproto.prototypes import Prototypes, check_shape, estimate_prototypes
from fastproto.support.checks import (
    check_classes,
    check_momentum,
    check_permutation,
    check_seed,
    check_width,
    default_device,
    recording,
)
from fastproto.support.distributed import Gathering, all_counts, from_rank_0, in_process_group, rank_0_says
from fastproto.support.error_flags import BAD_ASSIGNMENT, NOT_FINITE, new_flag, raise_bits, take
from fastproto.support.guarded_module import GuardedState
from fastproto.support.row_norms import normalise, unit

OFFICIAL_MOMENTUM = 0.95  # the authors' q ← 1.9 q + 0.1 z, then normalised: the direction of 0.95 q + 0.05 z
Found = Assignment | Alignment


class PrototypeHead(GuardedState):
    """Loss, prediction and re-assignment for fixed prototypes; there is nothing here that an optimiser trains.

    ``loss = head(backbone(images), labels)`` in training; ``head.reassign()`` now and then; ``head.predict(features)``.

    Args:
        num_classes: C >= 2.
        dim: D >= 2, the width of the features.
        prototypes: unit rows [C, D] (a tensor or :class:`Prototypes`); None takes them from the cache or estimates
            them, on rank 0 alone where a process group is up. On the meta device nothing is estimated.
        momentum: α of the class means, in [0, 1).
        loss: ``eq6`` or ``official`` (the authors' (1 - cos)²).
        means: ``ema`` starts at zero and counts every sample in batch order; ``official`` starts at random unit rows,
            counts the last sample of a class in a batch, α = 0.95 whatever ``momentum`` says, and keeps rows unit.
        reduction: ``mean``, ``sum`` or ``none``. Over several ranks ``mean`` and ``sum`` are scaled so that the
            averaging of gradients by DDP gives the gradient of one process that sees all the samples.
        sync_class_means: over several ranks the means count the samples of all of them, gathered while backward runs.
            False sends no samples: each rank keeps the means of its own, and rank 0's decide.
        seed: of the estimated prototypes, the first assignment and the ``official`` means.
        nan_policy: ``raise``, or ``skip``: samples with NaN or inf have loss and gradient zero, do not count in the
            means, and are counted in ``skipped``. The ``mean`` is over the batch with them.

    Buffers (all in ``state_dict``; float32 and int64 whatever ``.half()`` does to the module): ``prototypes`` [C, D],
    ``assignment`` [C], ``class_means`` [C, D], ``prices`` [C], ``updates`` (how often the means have moved). Beside
    them ``skipped`` int64 [], the samples that ``nan_policy="skip"`` left out since the head was made or loaded.

    On the CPU a bad batch raises at once. On Triton (CUDA tensors) no step of one process waits for the device (of
    several, each waits for the sizes of the others' batches): bad samples are left out, and :meth:`check_batches`,
    :meth:`reassign`, :meth:`align` and ``state_dict`` raise it later.

    Raises:
        TypeError, ValueError: C < 2, D < 2, prototypes of another shape, not unit or requiring grad, unknown options.

    Source: Algorithm 1 of Saadabadi et al., CVPR 2024.
    """

    prototypes: Tensor
    class_means: Tensor
    prices: Tensor
    updates: Tensor
    skipped: Tensor
    flag: Tensor  # int32 [1], bits of fastproto.support.error_flags

    def __init__(
        self,
        num_classes: int,
        dim: int,
        *,
        prototypes: Tensor | Prototypes | None = None,
        momentum: float = 0.9,
        loss: str = "eq6",
        means: str = "ema",
        reduction: str = "mean",
        sync_class_means: bool = True,
        seed: int = 0,
        nan_policy: str = "raise",
    ) -> None:
        super().__init__()
        num_classes, dim = check_classes(num_classes, dim)
        momentum, seed = check_momentum(momentum), check_seed(seed)
        if loss not in ("eq6", "official") or means not in ("ema", "official"):
            raise ValueError(f"loss is {loss!r} and means {means!r}; expected 'eq6' or 'official', 'ema' or 'official'")
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"reduction is {reduction!r}; expected 'mean', 'sum' or 'none'")
        if nan_policy not in ("raise", "skip"):
            raise ValueError(f"nan_policy is {nan_policy!r}; expected 'raise' or 'skip'")
        self.num_classes, self.dim, self.nan_policy = num_classes, dim, nan_policy
        self.momentum, self.loss, self.means, self.reduction = momentum, loss, means, reduction
        self.sync_class_means = sync_class_means
        self._arriving: Gathering | None = None  # samples of all ranks that the means have yet to count
        self._inverse: tuple[Tensor, Tensor] | None = None  # an assignment and its inverse, of the last prediction
        generator = torch.Generator(device="cpu").manual_seed(seed)
        permutation = torch.randperm(num_classes, generator=generator, device="cpu")
        if means == "official":
            start = torch.randn(num_classes, dim, generator=generator, device="cpu", dtype=torch.float32)
            start = nn.functional.normalize(start, dim=1)
        else:
            start = ask_for_large_pages(torch.zeros(num_classes, dim, device="cpu", dtype=torch.float32))
        device = default_device()
        vectors = prepare_prototypes(
            prototypes, num_classes, dim, lambda: estimate_prototypes(num_classes, dim, seed=seed).vectors
        )
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
        update_means: bool = True,
    ) -> Tensor:
        """The loss of a batch; in training mode the class means move once, by the samples of all ranks in rank order.

        Over several ranks they have moved when backward ends (without one: when the head next needs them, or
        :meth:`settle`), since the samples of the others arrive meanwhile; those of the module, also if this call was
        given other buffers by ``torch.func.functional_call``.

        Args:
            features: [B, D], any float dtype.
            labels: int64 [B].
            weight: [B], a factor for each sample.
            labels2, lam: mixup: the loss is ``lam``·L(labels) + (1-``lam``)·L(labels2), ``lam`` in [0, 1] a number,
                [B] or [B, 1]; the means count each sample for the label of its larger share.
            update_means: False leaves the class means alone.

        Returns:
            scalar, or [B] for ``reduction="none"``.
        """
        if (labels2 is None) != (lam is None):
            raise ValueError("labels2 and lam go together; expected both for mixup, or neither")
        self._heal(counted_only=True)
        grouped = in_process_group() and self.training
        # A checkpointed forward runs again inside backward: the means have already counted this batch.
        recomputing = not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1
        moving = self.training and update_means and not recomputing
        fused = moving and self.means == "ema" and labels2 is None and not grouped
        counting = self.nan_policy == "skip" and not recomputing
        counts: list[int] = []
        averaged = self.reduction == "mean" and not grouped
        try:
            counted = labels
            if labels2 is None:
                loss = self._per_sample(features, labels, weight, averaged, fused, counting)
            else:
                check_two_labels(labels, labels2, self.num_classes)
                shares = check_share(lam, labels, self.flag)
                loss = self._per_sample(features, labels, weight, averaged, fused, counting)
                loss = mixed(loss, self._per_sample(features, labels2, weight, averaged), shares)
                counted = larger(labels, labels2, shares[0])
        except (TypeError, ValueError):
            if grouped:  # the other ranks must hear of it, or they wait for this one until the group's time is over
                all_counts(-1, features.device)
            raise
        if grouped:
            counts = all_counts(len(labels), features.device)
        if moving and not fused:
            if grouped and self.sync_class_means:
                self.settle()
                self._arriving = Gathering(features.detach(), counted, counts)
                if loss.requires_grad:
                    loss.register_hook(self._settle_after_backward)
            else:
                with torch.no_grad():
                    self._move_means(features.detach(), counted)
        if self.reduction == "none":
            return loss
        total = loss.sum()
        if grouped:
            total = total * dist.get_world_size()
            return total / max(sum(counts), 1) if self.reduction == "mean" else total
        return total

    def _per_sample(
        self,
        features: Tensor,
        labels: Tensor,
        weight: Tensor | None,
        averaged: bool,
        fused: bool = False,
        counting: bool = False,
    ) -> Tensor:
        """The loss [B]; ``fused``: the means move with it; ``counting``: so does the number of skipped samples."""
        check_ipm(features, labels, self.prototypes, self.assignment, weight)
        factor = 2.0 if self.loss == "official" else 1.0
        if averaged:  # the factor goes into the gradient that forward makes: backward has then nothing to scale
            factor /= max(len(features), 1)
        given = features, labels, self.prototypes, self.assignment, weight, factor, self.nan_policy == "skip"
        skipped = self.skipped if counting else None
        if not fused:
            return ipm_per_sample(*given, self.flag, skipped)
        loss = head_step_(*given, self.flag, skipped, self.class_means, self.momentum)
        if len(labels):
            self.updates.add_(1)
        return loss

    def _move_means(self, features: Tensor, labels: Tensor) -> None:
        if len(labels) == 0:
            return
        if self.means == "ema":
            skip = self.nan_policy == "skip"
            move_means_(self.class_means, features, labels, self.momentum, skip, self.flag)
        else:
            self._move_official_means(features, labels)
        self.updates.add_(1)

    @torch.no_grad()
    def settle(self) -> None:
        """Count the samples of all ranks that are still on their way, if there are any."""
        arriving, self._arriving = self._arriving, None
        if arriving is not None:
            self._move_means(*arriving.wait())

    def _settle_after_backward(self, _gradient: Tensor) -> None:
        torch.autograd.Variable._execution_engine.queue_callback(self.settle)

    def _move_official_means(self, features: Tensor, labels: Tensor) -> None:
        """Every sample writes the new row of its class, the same for all of a class; bad ones write another's."""
        z, inverse = normalise(features, skip=True)
        good = (labels >= 0) & (labels < self.num_classes) & ~inverse.isnan().squeeze(1)
        own = torch.arange(len(labels), device=labels.device)
        classes = labels[torch.where(good, own, good.int().argmax())].clamp(0, self.num_classes - 1)
        ordered, order = torch.where(good, labels, -1).sort(stable=True)
        last = order[(torch.searchsorted(ordered, classes, right=True) - 1).clamp_min(0)]
        before = self.class_means[classes]
        row = nn.functional.normalize(OFFICIAL_MOMENTUM * before + (1 - OFFICIAL_MOMENTUM) * z[last], dim=1)
        self.class_means.index_copy_(0, classes, torch.where(good.any(), row.to(before.dtype), before))

    def check_batches(self) -> None:
        """Raise what the kernels left out of the batches since the last look; this waits for the device.

        Raises:
            ValueError: labels out of range, or NaN or inf in the features unless ``nan_policy`` is ``skip``; said once.
        """
        self.settle()
        if self.flag.device.type != "meta":
            raise_bits(take(self.flag) & ~(NOT_FINITE if self.nan_policy == "skip" else 0))

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_inverse": None}

    def _checked(self, compute: Callable[[], Found]) -> Callable[[], Found]:
        def checked() -> Found:
            self.check_batches()
            return compute()

        return checked

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        self.check_batches()
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def logits(self, features: Tensor) -> Tensor:
        """Cosines [B, C] of each sample with the prototype of each *label*: column y is label y. Differentiable."""
        self._sound()
        check_width(features, self.dim)
        with torch.autocast(features.device.type, enabled=False):
            z = unit(features)
            return z @ self.weight_by_label().to(z.dtype).T

    def predict(self, features: Tensor, k: int = 1) -> Tensor:
        """The k most likely labels [B, k] int64, best first, without a B×C matrix."""
        return self.predict_with_cosines(features, k)[0]

    def predict_with_cosines(self, features: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        """Labels [B, k] and the cosines [B, k] to their prototypes."""
        self._sound()
        cosines, rows = nearest(features, self.prototypes, k, self.flag)
        return self._label_of_row()[rows], cosines

    @torch.no_grad()
    def _label_of_row(self) -> Tensor:
        """A⁻¹ [C]: numbers in 0..C-1 whatever the assignment is; on the CPU one that is no permutation is an error."""
        if torch.compiler.is_compiling() or recording():
            return torch.argsort(self._permutation())
        count, device = self.num_classes, self.assignment.device
        if device.type == "cpu" and self._inverse is not None and torch.equal(self._inverse[0], self.assignment):
            return self._inverse[1]
        label_of_row = torch.full_like(self.assignment, -1)
        within = self.assignment.clamp(0, count - 1)
        label_of_row.scatter_(0, within, torch.arange(count, device=device))
        bad = ((label_of_row < 0) | (within != self.assignment)).any()
        if device.type == "cpu":
            if bool(bad):
                check_permutation("assignment", self.assignment, count)
            self._inverse = self.assignment.clone(), label_of_row
            return label_of_row
        self.flag |= BAD_ASSIGNMENT * bad
        return label_of_row.clamp_min_(0)

    def weight_by_label(self) -> Tensor:
        """W[A] [C, D]: row y is the prototype of label y; the weight of an ``nn.Linear`` without bias, for export."""
        self._sound()
        return self.prototypes[self._permutation()]

    @torch.no_grad()
    def reassign(self, *, class_means: Tensor | None = None) -> Assignment:
        """Renew the assignment from the class means; rank 0 solves, every rank gets the same answer.

        ``class_means`` [C, D] stand in for the head's own, such as those of an untrained backbone; same on all ranks.
        """
        found = self._adopt(self._on_rank_0(self._checked(self._problem(class_means))))
        assert isinstance(found, Assignment)
        return found

    @torch.no_grad()
    def align(
        self,
        *,
        starts: int = 4,
        seed: int = 0,
        class_means: Tensor | None = None,
        time_limit: float | None = None,
    ) -> Alignment:
        """Turn the prototypes and renew the assignment together; the turned prototypes are what a checkpoint holds."""
        options = {"starts": starts, "seed": seed, "time_limit": time_limit}
        found = self._adopt(self._on_rank_0(self._checked(self._problem(class_means, options))))
        assert isinstance(found, Alignment)
        return found

    @torch.no_grad()
    def begin_renewal(self, *, aligned: bool = False, starts: int = 4, seed: int = 0) -> Future[Found]:
        """Start to solve what :meth:`reassign` (or :meth:`align`) would, in a thread and from copies: steps can go on.

        Give the result to :meth:`finish_renewal`, with no other renewal in between. On ranks other than 0 nothing runs.
        """
        options = {"starts": starts, "seed": seed} if aligned else None
        self.settle()
        if in_process_group() and dist.get_rank() != 0:
            return Future()
        return in_background(self._problem(self.class_means.clone(), options), self.assignment.device)

    @torch.no_grad()
    def finish_renewal(self, renewal: Future[Found], *, wait: bool = True, adopt: bool = True) -> Found | None:
        """Adopt a renewal that :meth:`begin_renewal` started, on all ranks; an error of its thread is raised here.

        None, with nothing changed, if it still runs and ``wait`` is False. With ``adopt=False`` it is only waited for.
        """
        if not wait and not rank_0_says(renewal.done(), self.assignment.device):
            return None
        found = self._on_rank_0(self._checked(renewal.result))
        return self._adopt(found) if adopt else found

    def _problem(self, class_means: Tensor | None, align_options: dict[str, Any] | None = None) -> Callable[[], Found]:
        """What there is to solve, given class means (None: as they are when it is solved)."""
        self.settle()
        self._heal()
        means = self.class_means if class_means is None else class_means
        prototypes, previous = self.prototypes, self._as_assignment()
        if align_options is None:
            return lambda: assign(means, prototypes, previous=previous)
        return lambda: align(means, prototypes, **align_options)

    def _on_rank_0(self, compute: Callable[[], Found]) -> Found:
        if not in_process_group():
            return compute()
        found: Found = from_rank_0(compute, self.assignment.device)
        return found

    def _adopt(self, found: Found) -> Found:
        """Take over an assignment, or an alignment with its turn; ``changed`` is counted against the one in force."""
        if isinstance(found, Alignment):
            with torch.autocast(self.prototypes.device.type, enabled=False):
                rotation = found.rotation.to(self.prototypes)
                self.prototypes.copy_(nn.functional.normalize(self.prototypes @ rotation, dim=1))
            inner = self._adopt(found.assignment)
            assert isinstance(inner, Assignment)
            return replace(found, assignment=inner)
        found = replace(found, changed=int((found.permutation.to(self.assignment.device) != self.assignment).sum()))
        self.assignment.copy_(found.permutation)
        self.prices.copy_(found.prices)
        self._keep(decided=True)
        return found

    def _as_assignment(self) -> Assignment:
        return Assignment(
            permutation=self.assignment.clone(),
            prices=self.prices.clone(),
            objective=float("nan"),
            gap=float("inf"),
            relative_gap=float("inf"),
            rounding_floor=0.0,
            certified=False,
            changed=None,
            method="head",
            reason="the head's buffers",
            seconds=0.0,
            passes=0,
        )

    def extra_repr(self) -> str:
        return f"num_classes={self.num_classes}, dim={self.dim}, loss={self.loss!r}, means={self.means!r}"


def prepare_prototypes(
    given: Tensor | Prototypes | None, num_classes: int, dim: int, make: Callable[[], Tensor]
) -> Tensor:
    """Unit rows [C, D] float32 on the default device: the given ones, or those that rank 0 makes.

    On the meta device nothing is made: a checkpoint will bring them.
    """
    device = default_device()
    if given is not None:
        return check_shape(given, num_classes, dim).float().clone().to(device)
    if device.type == "meta":
        return torch.empty(num_classes, dim, dtype=torch.float32)
    made: Tensor = from_rank_0(make, device) if in_process_group() else make().to(device)
    return made


def exclude_from_broadcast(model: nn.Module) -> None:
    """Keep DDP from sending the heads' C-sized buffers before every forward: call it on the module given to DDP.

    Every rank computes the same state from the same gathered samples, so there is nothing to send.
    """
    ignored = set(getattr(model, "_ddp_params_and_buffers_to_ignore", ()))
    for name, module in model.named_modules():
        if isinstance(module, GuardedState):
            buffers = dict(module.named_buffers(recurse=False))
            ignored |= {f"{name}.{buffer}" if name else buffer for buffer in buffers}
    model._ddp_params_and_buffers_to_ignore = ignored  # type: ignore[assignment]  # the name DDP reads
