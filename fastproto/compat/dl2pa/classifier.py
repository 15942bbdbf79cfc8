"""The authors' classifier: class means, assignment and cosines under their names."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from fastproto.assignment import Assignment, assign
from fastproto.functional import update_class_means_
from fastproto.ops.update_class_means import OFFICIAL_MOMENTUM
from fastproto.prototypes import Prototypes, check_shape, estimate_prototypes, load_prototypes
from fastproto.support.checks import check_classes, check_label_range, real
from fastproto.support.distributed import Gathering, all_counts, from_rank_0, in_process_group

KEPT, ADDED = 1.9, 0.1  # q ← 1.9 q + 0.1 lam z; then the row is normalised
SHORTEST = 1e-8  # least norm that a row is divided by


class fixed_Classifier(nn.Module):
    """The authors' ``fixed_Classifier``, on the CPU or a GPU, for loops in their order of calls.

    ``docs/dl2pa.md`` shows such a loop and lists the differences.

    Args:
        feat_in: D >= 2.
        num_classes: C >= 2.
        centroid_path: file of prototypes, theirs (``.pth``) or any that :func:`fastproto.load_prototypes` reads;
            :class:`fastproto.Prototypes`; None estimates them.
        gpu_id: index of a GPU or a device; without a GPU, and for None, the CPU.
        fix_bn: keep weight and bias of ``BN_H`` fixed.

    Buffers, all in ``state_dict``: ``queue`` [C, D] (class means), ``prototypes`` [C, D] (unit rows), ``assignment``
    [C] int64. ``BN_H`` is a BatchNorm1d. A state of theirs, with ``queue`` and ``BN_H`` alone, loads too and leaves
    prototypes and assignment as they are.

    Raises:
        FileNotFoundError, ValueError: as :func:`fastproto.load_prototypes`; prototypes of another shape.
    """

    queue: Tensor
    prototypes: Tensor
    assignment: Tensor

    def __init__(
        self,
        feat_in: int,
        num_classes: int,
        centroid_path: str | os.PathLike[str] | Prototypes | None,
        gpu_id: int | str | torch.device | None = 0,
        fix_bn: bool = False,
    ) -> None:
        super().__init__()
        num_classes, feat_in = check_classes(num_classes, feat_in)
        self.gpu_id = gpu_id
        device = _device_of(gpu_id)
        vectors = check_shape(_prototypes_of(centroid_path, num_classes, feat_in), num_classes, feat_in)
        queue = torch.randn(num_classes, feat_in, dtype=torch.float32)
        self.register_buffer("prototypes", vectors.float().to(device))
        self.register_buffer("queue", from_rank_0(lambda: queue, device) if in_process_group() else queue.to(device))
        self.register_buffer("assignment", torch.arange(num_classes, device=device))
        self.BN_H = nn.BatchNorm1d(feat_in).to(device)
        for parameter in self.BN_H.parameters():
            parameter.requires_grad_(not fix_bn)
        self.offline_haungarian_idx: NDArray[np.int64] | None = None
        self._polars: tuple[Tensor, Tensor] | None = None  # an assignment, and the rows that it chooses
        self._solved: Assignment | None = None  # for a warm start
        self._all_unit = False  # whether every row of queue is: at first they are random normal
        self.update_fixed_center()

    @property
    def P(self) -> Tensor:
        """The prototypes as columns, [D, C]."""
        return self.prototypes.T

    @property
    def polars(self) -> Tensor:
        """The prototypes in the order of the labels as columns, [D, C]: column y is that of label y."""
        if self._polars is None or self._polars[0] is not self.assignment:
            self._polars = self.assignment, self.prototypes[self.assignment]
        return self._polars[1].T

    def forward(self, x: Tensor) -> Tensor:
        """Features [B, D] through ``BN_H``, as unit rows; their code calls it for long-tailed data alone."""
        return F.normalize(self.BN_H(x), dim=1, eps=SHORTEST)

    @torch.no_grad()
    def forward_momentum(self, x: Tensor, labels_a: Tensor, lam: float = 1) -> None:
        """Move the class means: q ← 1.9 q + 0.1 ``lam`` z for each sample in batch order, then rows are normalised.

        That is an average with the momentum 0.95 (for ``lam`` 1). All samples of a class count, of all ranks; in the
        authors' code one of them does. Only rows of classes in the batch are touched.

        Args:
            x: features [B, D], any float dtype.
            labels_a: int64 [B].
            lam: a number in [0, 1].

        Raises:
            TypeError, ValueError: as :func:`fastproto.update_class_means_`; a ``lam`` out of range.
        """
        lam = real("lam", lam)
        if not 0 <= lam <= 1:
            raise ValueError(f"lam is {lam}; expected a number in [0, 1]: pass 1 where nothing is mixed")
        features, labels = x.detach(), labels_a
        if in_process_group():
            features, labels = Gathering(features, labels, all_counts(len(labels), labels.device)).wait()
        momentum = OFFICIAL_MOMENTUM if lam == 1 else KEPT / (KEPT + ADDED * lam)
        if lam > 0:
            update_class_means_(self.queue, features, labels, momentum)
        if not self._all_unit:
            self.queue.copy_(F.normalize(self.queue, dim=1, eps=SHORTEST))
            self._all_unit = True
        elif len(labels):
            within = labels.clamp(0, len(self.queue) - 1)  # a kernel leaves bad labels out and reports them later
            self.queue.index_copy_(0, within, F.normalize(self.queue[within], dim=1, eps=SHORTEST))

    @torch.no_grad()
    def haungarian(self) -> tuple[Tensor, NDArray[np.int64]]:
        """The best assignment for the class means: prototypes in the order of the labels [D, C], and their rows [C].

        Nothing but ``offline_haungarian_idx`` changes. With several ranks rank 0 solves it for all.

        Raises:
            ValueError: class means that :func:`fastproto.assign` refuses.
        """

        def solve() -> Assignment:
            return assign(self.queue, self.prototypes, previous=self._solved)

        self._solved = from_rank_0(solve, self.queue.device) if in_process_group() else solve()
        self.offline_haungarian_idx = self._solved.permutation.cpu().numpy().copy()
        return self.prototypes[self._solved.permutation].T, self.offline_haungarian_idx

    @torch.no_grad()
    def update_fixed_center(self) -> NDArray[np.int64]:
        """Put the result of :meth:`haungarian` in force; the prototype of each label [C] is returned.

        Call it before the first step of an epoch, or save the checkpoint first: their loop validates with one
        assignment and saves the next.
        """
        polars, index = self.haungarian()
        self.assignment = torch.from_numpy(index).to(self.queue.device)
        self._polars = self.assignment, polars.T
        return index

    def predict(self, x: Tensor) -> Tensor:
        """Cosines [B, C] of features [B, D]; column y is label y."""
        return self.predictLT(x, self.polars)

    def predictLT(self, x: Tensor, weighted_polars: Tensor) -> Tensor:
        """The product [B, C] of normalised features [B, D] with any columns [D, C]."""
        return F.normalize(x, dim=1) @ weighted_polars.to(x.dtype)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """A state of theirs has neither prototypes nor assignment."""
        for name in ("prototypes", "assignment"):
            state_dict.setdefault(prefix + name, getattr(self, name))
        check_label_range("assignment", state_dict[prefix + "assignment"], len(self.assignment))
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._polars, self._solved, self._all_unit = None, None, False


def _device_of(gpu_id: int | str | torch.device | None) -> torch.device:
    """The CPU where there is no GPU: their default is the GPU 0."""
    if gpu_id is None or (isinstance(gpu_id, int) and not torch.cuda.is_available()):
        return torch.device("cpu")
    return torch.device("cuda", gpu_id) if isinstance(gpu_id, int) else torch.device(gpu_id)


def _prototypes_of(given: str | os.PathLike[str] | Prototypes | None, num_classes: int, dim: int) -> Prototypes:
    if isinstance(given, Prototypes):
        return given
    return estimate_prototypes(num_classes, dim) if given is None else load_prototypes(given)
