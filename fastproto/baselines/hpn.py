"""Hyperspherical Prototype Networks: prototypes of low max cosine, optionally ordered by word vectors, fixed."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fastproto.baselines.base import StaticHead
from fastproto.head_state import prepare_prototypes
from fastproto.prototypes import Prototypes, estimate_prototypes
from fastproto.support.checks import check_classes, check_finite, check_matrix, check_positive, check_seed, whole
from fastproto.support.loss_options import Reduction
from fastproto.support.options import Effort, check_options


class HPNHead(StaticHead):
    """``(1 - (F.normalize(x) * W[y]).sum(1)) ** 2`` with W [C, D] of low max cosine, row y for label y.

    Args:
        num_classes, dim, reduction: as of :class:`CosineHead`. The paper sums over the batch (``sum``).
        prototypes: unit rows [C, D] in the order of the labels, such as the authors' file; None estimates them.
        word_vectors: [C, D'] of any width, a row for each class name (:func:`fastproto.prototypes.load_word_vectors`):
            the prototypes are then :func:`semantic_prototypes` of them.
        seed: of the estimated prototypes and, without word vectors, of their random order.
        effort: of the estimate: ``normal`` or ``best``, see :func:`fastproto.prototypes.estimate_prototypes`.

    Raises:
        TypeError, ValueError: as :class:`CosineHead`; prototypes of another shape, not unit or requiring grad; word
            vectors of another number of classes, or together with prototypes.

    Source: Mettes et al., "Hyperspherical Prototype Networks", NeurIPS 2019.
    """

    def __init__(
        self,
        num_classes: int,
        dim: int,
        *,
        prototypes: Tensor | Prototypes | None = None,
        word_vectors: Tensor | Prototypes | None = None,
        reduction: Reduction = "mean",
        seed: int = 0,
        effort: Effort = "normal",
    ) -> None:
        num_classes, dim = check_classes(num_classes, dim)
        seed = check_seed(seed)
        check_options(effort=effort)
        if prototypes is not None and word_vectors is not None:
            raise ValueError("prototypes and word_vectors were both given; expected at most one: leave one out")
        words = word_vectors.vectors if isinstance(word_vectors, Prototypes) else word_vectors
        if words is not None:
            check_matrix("word_vectors", words)
        if words is not None and len(words) != num_classes:
            raise ValueError(f"word_vectors has {len(words)} rows; expected {num_classes}, one for each class")

        def make() -> Tensor:
            if words is not None:
                return semantic_prototypes(words, dim, seed=seed)
            made = estimate_prototypes(num_classes, dim, objective="max_cosine", effort=effort, seed=seed).vectors
            # Closed forms are ordered, and that order must not decide which labels get neighbouring rows.
            order = torch.randperm(num_classes, generator=torch.Generator("cpu").manual_seed(seed), device="cpu")
            return made[order]

        super().__init__(prepare_prototypes(prototypes, num_classes, dim, make), reduction=reduction)

    def sample_losses(self, features: Tensor, labels: Tensor) -> Tensor:
        """Squared cosine distance of each sample, [B]."""
        return self.pull(features, labels, "official")


def semantic_prototypes(word_vectors: Tensor, dim: int, *, steps: int = 1000, lr: float = 0.1, seed: int = 0) -> Tensor:
    """Unit rows W far apart, whose cosines are ordered as those of the word vectors: similar classes lie closer.

    Minimises the mean cosine of nearest neighbours plus a ranking loss: over triplets (i, j, k) the cross-entropy
    between ``sigmoid(w_i·w_j - w_i·w_k)`` and whether word i is at least as close to word j as to word k. Every step
    draws one k for each j: C² of the C³ triplets.

    Args:
        word_vectors: [C, D'] float, C >= 2, non-zero rows.
        dim: D >= 2.
        steps, lr: of gradient descent with momentum 0.9; the learning rate decays linearly to zero, and rows are
            normalised after each step.
        seed: of the initial rows and of the triplets.

    Returns:
        [C, D] float32 on the CPU.

    Raises:
        TypeError, ValueError: word vectors of another shape or dtype, NaN, a zero row, D < 2, steps < 1, lr <= 0.

    Source: Mettes et al., NeurIPS 2019, the prototypes with privileged information; the optimiser is our choice.
    """
    check_matrix("word_vectors", word_vectors, min_rows=2)
    check_finite("word_vectors", word_vectors)
    if bool((word_vectors == 0).all(1).any()):
        row = int((word_vectors == 0).all(1).nonzero()[0])
        raise ValueError(f"word_vectors row {row} is zero; expected a direction for every class: leave the class out")
    dim, steps, seed, lr = whole("dim", dim), whole("steps", steps), check_seed(seed), check_positive("lr", lr, "0.1")
    if dim < 2 or steps < 1:
        raise ValueError(f"dim is {dim} and steps {steps}; expected dim >= 2 and at least one step")
    with torch.device("cpu"), torch.enable_grad():
        words = F.normalize(word_vectors.detach().cpu().double(), dim=1)
        count, similarity = len(words), words @ words.T
        generator = torch.Generator().manual_seed(seed)
        w = F.normalize(torch.randn(count, dim, generator=generator, dtype=torch.float32), dim=1).requires_grad_()
        optimizer = torch.optim.SGD([w], lr=lr, momentum=0.9)
        # The nearest cosine is not smooth: at a constant learning rate the rows would not converge.
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
        for _ in range(steps):
            loss = _semantic_loss(w @ w.T, similarity, torch.randperm(count, generator=generator))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                w.copy_(F.normalize(w, dim=1))
        return w.detach()


def _semantic_loss(cosines: Tensor, similarity: Tensor, k: Tensor) -> Tensor:
    """Mean cosine of nearest neighbours plus the ranking loss of triplets (i, j, k[j]) of distinct classes."""
    count = len(cosines)
    other = ~torch.eye(count, dtype=torch.bool)
    nearest = cosines.masked_fill(~other, -2.0).amax(1).mean()
    triplets = other & other[:, k] & (k != torch.arange(count))
    closer = (similarity >= similarity[:, k]).to(cosines.dtype)
    ranking = F.binary_cross_entropy_with_logits(cosines - cosines[:, k], closer, reduction="none")
    return nearest + (ranking * triplets).sum() / triplets.sum().clamp_min(1)
