"""A fixed simplex equiangular tight frame as classifier, with the dot-regression loss."""

from __future__ import annotations

import torch
from torch import Tensor

from fastproto.baselines.base import StaticHead
from fastproto.head_state import prepare_prototypes
from fastproto.prototypes.closed_forms import simplex
from fastproto.support.checks import check_classes, check_positive, check_seed
from fastproto.support.loss_options import Reduction


class ETFHead(StaticHead):
    """``0.5 * energy * ((F.normalize(x) * W[y]).sum(1) - 1) ** 2`` with W [C, D] a randomly rotated simplex.

    Any two rows of W have the cosine -1/(C-1), the least that C vectors can all have. The paper's loss is
    (w·h - √(E_W E_H))² / (2 √(E_W E_H)) for ‖w‖² = E_W and features scaled to ‖h‖² = E_H: this one, with
    ``energy`` = √(E_W E_H).

    Args:
        num_classes: C.
        dim: D >= C - 1: no more than D + 1 vectors can be equally far apart.
        energy: √(E_W E_H), a factor on the loss, > 0.
        reduction: as of :class:`CosineHead`.
        seed: of the random rotation.

    Raises:
        ValueError: as :class:`CosineHead`; D < C - 1; an energy that is not positive.

    Source: Yang et al., "Inducing Neural Collapse in Imbalanced Learning", NeurIPS 2022.
    """

    def __init__(
        self, num_classes: int, dim: int, *, energy: float = 1.0, reduction: Reduction = "mean", seed: int = 0
    ) -> None:
        num_classes, dim = check_classes(num_classes, dim)
        energy, seed = check_positive("energy", energy, "1"), check_seed(seed)
        if num_classes > dim + 1:
            raise ValueError(
                f"num_classes is {num_classes} and dim {dim}; expected dim >= {num_classes - 1}, since at most dim + 1 "
                "vectors can be equally far apart: raise dim, or take a head with estimated prototypes"
            )
        vectors = prepare_prototypes(None, num_classes, dim, lambda: random_simplex(num_classes, dim, seed))
        super().__init__(vectors, reduction=reduction)
        self.energy = energy

    def sample_losses(self, features: Tensor, labels: Tensor) -> Tensor:
        """Dot-regression loss of each sample, [B]."""
        return self.energy * self.pull(features, labels, "eq6")


def random_simplex(num_classes: int, dim: int, seed: int) -> Tensor:
    """Unit rows [C, D] float32 with all cosines -1/(C-1), D >= C-1, rotated uniformly at random."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    gaussian = torch.randn(dim, num_classes - 1, dtype=torch.float64, generator=generator, device="cpu")
    frame, triangle = torch.linalg.qr(gaussian)
    frame = frame * triangle.diagonal().sign()  # otherwise LAPACK's choice of signs biases the rotation
    with torch.device("cpu"):
        points: Tensor = simplex(num_classes) @ frame.T
    return points.float()
