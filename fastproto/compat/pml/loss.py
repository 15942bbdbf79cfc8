"""The prototype loss as a loss function of PyTorch Metric Learning."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses import BaseMetricLossFunction
from torch import Tensor

from fastproto.assignment import Assignment
from fastproto.head import PrototypeHead
from fastproto.prototypes import Prototypes
from fastproto.support.checks import whole
from fastproto.support.distributed import in_process_group
from fastproto.support.loss_options import Loss, Means, Power, Scale


class PrototypeLoss(BaseMetricLossFunction):
    """:class:`fastproto.PrototypeHead` as a classification loss: ``loss(embeddings, labels)``.

    The head is ``loss.head``: after training, ``loss.head.predict(embeddings)`` gives labels. In training mode a call
    moves the class means. The assignment is renewed by :meth:`renew`, or every ``renew_every`` calls in training mode.
    The loss has no parameters: no optimiser is needed for it. Its device is that of the embeddings.

    Under DDP pass each rank's own embeddings: the class means count the samples of all ranks. With
    ``DistributedLossWrapper``, which gathers them first, they would count every sample once for each rank.

    Args:
        num_classes: C >= 2; labels are 0..C-1.
        embedding_size: D >= 2.
        renew_every: calls in training mode, but for empty batches, between two renewals; the renewal runs before the
            loss of a call. None: only :meth:`renew`.
        prototypes, momentum, loss, power, scale, means, seed: as of :class:`fastproto.PrototypeHead`.
        kwargs: of ``BaseMetricLossFunction``: ``reducer``, ``embedding_regularizer``, ``embedding_reg_weight``,
            ``collect_stats``. The losses that a reducer gets are one per sample (type ``element``).

    ``forward(embeddings, labels)`` takes [B, D] of any float dtype and int64 [B], and returns what the reducer makes of
    the losses, by default their mean; an empty batch has the loss 0.

    Raises:
        TypeError, ValueError: as :class:`fastproto.PrototypeHead`; a distance other than cosines; a weight regulariser,
            since there are no weights; in a call ``indices_tuple`` or ``ref_emb``, since a sample is compared with its
            prototype and not with other samples.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        renew_every: int | None = None,
        *,
        prototypes: Tensor | Prototypes | None = None,
        momentum: float = 0.9,
        loss: Loss = "eq6",
        power: Power | None = None,
        scale: Scale | None = None,
        means: Means = "ema",
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        _check_options(kwargs)
        super().__init__(**kwargs)
        self.head = PrototypeHead(
            num_classes,
            embedding_size,
            prototypes=prototypes,
            momentum=momentum,
            loss=loss,
            power=power,
            scale=scale,
            means=means,
            reduction="none",
            seed=seed,
        )
        self.num_classes, self.embedding_size = self.head.num_classes, self.head.dim
        self.renew_every = None if renew_every is None else whole("renew_every", renew_every)
        if self.renew_every is not None and self.renew_every < 1:
            raise ValueError(f"renew_every is {renew_every}; expected at least 1 call, or None for renew() alone")
        self._calls: int | None = None  # in training mode; None: not yet read from the state
        self.add_to_recordable_attributes(list_of_names=["num_classes", "embedding_size"], is_stat=False)

    def compute_loss(
        self, embeddings: Tensor, labels: Tensor | None, indices_tuple: Any, ref_emb: Any, ref_labels: Any
    ) -> dict[str, dict[str, Any]]:
        """The loss of each sample, for the reducer; called by ``forward``."""
        _check_call(embeddings, labels, indices_tuple, ref_emb, ref_labels)
        assert labels is not None
        if self.head.prototypes.device != embeddings.device:
            self.head.to(embeddings.device)
        # an empty batch is no update of the class means, unless other ranks have samples
        if self.training and self.renew_every is not None and (len(labels) or in_process_group()):
            self._count(self.renew_every)
        losses = self.head(embeddings, labels)
        if len(losses) == 0:
            return {"loss": self.zero_loss()}
        own = torch.arange(len(labels), device=labels.device)
        return {"loss": {"losses": losses, "indices": own, "reduction_type": "element"}}

    def renew(self) -> Assignment:
        """Renew the assignment now: :meth:`fastproto.PrototypeHead.reassign`."""
        return self.head.reassign()

    def get_logits(self, embeddings: Tensor) -> Tensor:
        """Cosines [B, C] with the prototype of each label."""
        return self.head.logits(embeddings)

    def get_default_distance(self) -> CosineSimilarity:
        return CosineSimilarity()

    def _count(self, every: int) -> None:
        """Renew before each call whose number, from 0, is a multiple of ``every`` but 0."""
        if self._calls is None:
            self._calls = int(self.head.updates)  # a loaded state goes on counting where it was saved
        if self._calls and self._calls % every == 0:
            self.renew()
        self._calls += 1

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._calls = None


def _check_options(given: dict[str, Any]) -> None:
    for name in ("weight_regularizer", "weight_reg_weight", "weight_init_func"):
        if given.get(name) is not None:
            raise ValueError(
                f"{name} was given; expected none: prototypes are fixed, and there are no weights to change"
            )
    distance = given.get("distance")
    if distance is not None and not isinstance(distance, CosineSimilarity):
        raise ValueError(
            f"distance is {type(distance).__name__}; expected CosineSimilarity: the loss is a function of the cosine"
        )


def _check_call(embeddings: Tensor, labels: Any, indices_tuple: Any, ref_emb: Any, ref_labels: Any) -> None:
    """Refuse what has no meaning here. Without references PML passes the batch itself."""
    if labels is None:
        raise ValueError("labels are missing; expected int64 [B]: pass the class of each embedding")
    if indices_tuple is not None:
        raise ValueError(
            "indices_tuple was given; expected none: each sample is pulled to its prototype, so there are no pairs or "
            "triplets to mine: leave out the miner, or DistributedLossWrapper, which makes pairs if it is efficient"
        )
    if ref_emb is not embeddings or ref_labels is not labels:
        raise ValueError(
            "ref_emb was given; expected none: samples are compared with prototypes and not with other samples: leave "
            "out ref_emb and ref_labels, and CrossBatchMemory"
        )
