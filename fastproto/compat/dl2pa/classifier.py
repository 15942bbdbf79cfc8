"""The authors' classifier: class means, assignment and cosines under their names."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from fastproto.assignment import Assignment, assign
from fastproto.functional import update_class_means_
from fastproto.head_state import prepare_prototypes
from fastproto.prototypes import Prototypes, check_shape, estimate_prototypes, load_prototypes
from fastproto.support.checks import check_classes, check_permutation, real
from fastproto.support.distributed import Gathering, all_counts, all_numbers, from_rank_0, in_process_group
from fastproto.support.exact_buffers import version_of

KEPT, ADDED = 1.9, 0.1  # q ← 1.9 q + 0.1 lam z; then the row is normalised
SHORTEST = 1e-8  # least norm that a row is divided by
Given = str | os.PathLike[str] | Prototypes | Tensor | None


class fixed_Classifier(nn.Module):
    """The authors' ``fixed_Classifier``, on the CPU or a GPU, for loops in their order of calls.

    ``docs/dl2pa.md`` shows such a loop and lists the differences.

    Args:
        feat_in: D >= 2.
        num_classes: C >= 2.
        centroid_path: file of prototypes, theirs (``.pth``) or any that :func:`fastproto.load_prototypes` reads;
            :class:`fastproto.Prototypes` or a tensor [C, D] of unit rows; None estimates them, on rank 0 for all.
        gpu_id: index of a GPU, or a device; where there is no GPU, and for None, the CPU.
        fix_bn: keep weight and bias of ``BN_H`` fixed.

    Buffers, all in ``state_dict``: ``queue`` [C, D] (class means), ``prototypes`` [C, D] (unit rows), ``assignment``
    [C] int64. ``BN_H`` is a BatchNorm1d. A state of theirs, with ``queue`` and ``BN_H`` alone, loads too and leaves
    prototypes and assignment as they are.

    Raises:
        FileNotFoundError, TypeError, ValueError: as :func:`fastproto.load_prototypes`; prototypes of another shape.
    """

    queue: Tensor
    prototypes: Tensor
    assignment: Tensor

    def __init__(
        self,
        feat_in: int,
        num_classes: int,
        centroid_path: Given,
        gpu_id: int | str | torch.device | None = 0,
        fix_bn: bool = False,
    ) -> None:
        super().__init__()
        num_classes, feat_in = check_classes(num_classes, feat_in)
        self.gpu_id = gpu_id
        device = _device_of(gpu_id)
        given = centroid_path
        if given is not None and not isinstance(given, Prototypes | Tensor):
            given = load_prototypes(given)
        vectors = prepare_prototypes(
            given, num_classes, feat_in, lambda: estimate_prototypes(num_classes, feat_in).vectors
        )
        queue = torch.randn(num_classes, feat_in, dtype=torch.float32)
        self.register_buffer("prototypes", vectors.to(device))
        self.register_buffer("queue", from_rank_0(lambda: queue, device) if in_process_group() else queue.to(device))
        self.register_buffer("assignment", torch.arange(num_classes, device=device))
        self.BN_H = nn.BatchNorm1d(feat_in).to(device)
        for parameter in self.BN_H.parameters():
            parameter.requires_grad_(not fix_bn)
        self.offline_haungarian_idx: NDArray[np.int64] | None = None
        self._polars: _Polars | None = None
        self._solved: Assignment | None = None  # for a warm start
        self._all_unit = False  # whether every row of queue is: at first they are random normal
        self.update_fixed_center()

    @property
    def P(self) -> Tensor:
        """The prototypes as columns, [D, C]."""
        return self.prototypes.T

    @property
    def polars(self) -> Tensor:
        """The prototypes in the order of the labels as columns, [D, C]: column y is that of label y.

        Setting it makes its normalised columns the prototypes, and the assignment the identity.

        Raises:
            TypeError, ValueError: when it is set, another shape or a column without a direction.
        """
        if self._polars is None or not self._polars.fits(self.assignment, self.prototypes):
            sources = self.assignment, self.prototypes
            versions = version_of(self.assignment), version_of(self.prototypes)
            self._polars = _Polars(self.prototypes[self.assignment], sources, versions)
        return self._polars.rows.T

    @polars.setter
    def polars(self, columns: Tensor) -> None:
        rows = F.normalize(columns.detach().float().T, dim=1)
        self.prototypes = check_shape(rows, *self.prototypes.shape).to(self.queue.device)
        self.assignment = torch.arange(len(rows), device=self.queue.device)
        self._solved = None

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
            lam: a number in [0, 1]; with several ranks each counts its samples with its own.

        Raises:
            TypeError, ValueError: as :func:`fastproto.update_class_means_`; a ``lam`` out of range.
        """
        lam = real("lam", lam)
        if not 0 <= lam <= 1:
            raise ValueError(f"lam is {lam}; expected a number in [0, 1]: pass 1 where nothing is mixed")
        features, labels = x.detach(), labels_a
        parts = [(features, labels, lam)]
        if in_process_group():
            sizes, shares = all_counts(len(labels), labels.device), all_numbers(lam, labels.device)
            features, labels = Gathering(features, labels, sizes).wait()
            parts = list(zip(features.split(sizes), labels.split(sizes), shares, strict=True))
        for samples, classes, share in parts:
            momentum = KEPT / (KEPT + ADDED * share)
            if momentum < 1:  # else the share is too small to move anything
                update_class_means_(self.queue, samples, classes, momentum)
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
        return self.prototypes[self._solved.permutation].T, self.offline_haungarian_idx.copy()

    @torch.no_grad()
    def update_fixed_center(self) -> NDArray[np.int64]:
        """Put the result of :meth:`haungarian` in force; the prototype of each label [C] is returned.

        Call it before the first step of an epoch, or save the checkpoint first: their loop validates with one
        assignment and saves the next.
        """
        _, index = self.haungarian()
        self.assignment = torch.tensor(index, device=self.queue.device)
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
        check_permutation(prefix + "assignment", state_dict[prefix + "assignment"], len(self.assignment))
        check_shape(state_dict[prefix + "prototypes"], *self.prototypes.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._solved, self._all_unit = None, False


class _Polars(NamedTuple):
    rows: Tensor  # [C, D] prototypes in the order of the labels
    sources: tuple[Tensor, Tensor]  # assignment and prototypes that they were taken from
    versions: tuple[int, int]  # of these: writes raise them

    def fits(self, *sources: Tensor) -> bool:
        same = all(one is other for one, other in zip(self.sources, sources, strict=True))
        return same and self.versions == tuple(version_of(source) for source in sources)


def _device_of(gpu_id: int | str | torch.device | None) -> torch.device:
    """The CPU where there is no GPU: their default is the GPU 0."""
    named = "cpu" if gpu_id is None else f"cuda:{gpu_id}" if isinstance(gpu_id, int) else gpu_id
    device = torch.device(named)
    return device if device.type != "cuda" or torch.cuda.is_available() else torch.device("cpu")
