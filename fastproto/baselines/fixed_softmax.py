"""Fixed, evenly spread prototypes with softmax cross-entropy."""

from __future__ import annotations

import torch
from torch import Tensor

from fastproto.baselines.base import StaticHead
from fastproto.head_state import prepare_prototypes
from fastproto.prototypes import Prototypes, estimate_prototypes
from fastproto.support.checks import check_classes, check_seed
from fastproto.support.loss_options import Reduction
from fastproto.support.options import Effort, check_options


class FixedSoftmaxHead(StaticHead):
    """``F.cross_entropy(scale * F.normalize(x) @ W[A].T, y)``: evenly spread prototypes W, a fixed random assignment A.

    With the same seed, W and A are those of :class:`FixedHead`: only the loss differs.

    Args:
        num_classes, dim, scale, reduction: as of :class:`CosineHead`.
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
        scale: float = 16.0,
        reduction: Reduction = "mean",
        seed: int = 0,
        effort: Effort = "normal",
    ) -> None:
        num_classes, dim = check_classes(num_classes, dim)
        seed = check_seed(seed)
        check_options(effort=effort)
        vectors = prepare_prototypes(
            prototypes,
            num_classes,
            dim,
            lambda: estimate_prototypes(num_classes, dim, effort=effort, seed=seed).vectors,
        )
        generator = torch.Generator(device="cpu").manual_seed(seed)
        permutation = torch.randperm(num_classes, generator=generator, device="cpu")
        super().__init__(vectors, assignment=permutation, scale=scale, reduction=reduction)
