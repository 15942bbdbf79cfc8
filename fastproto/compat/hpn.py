"""Hyperspherical Prototype Networks (Mettes et al., NeurIPS 2019): their prototype files and their loss."""

from __future__ import annotations

import os

from torch import Tensor

from fastproto.compat.label_rows import rows_by_label
from fastproto.compat.target_rows import squared_cosine_sum
from fastproto.head import PrototypeHead
from fastproto.prototypes import Prototypes, load_prototypes
from fastproto.prototypes.files import make


def load_polars(path: str | os.PathLike[str]) -> Tensor:
    """The prototypes of one of their ``.npy`` files, unit rows [C, D] float32: row y is that of label y.

    Raises:
        FileNotFoundError, ValueError: as :func:`fastproto.load_prototypes`.
    """
    return load_prototypes(path).vectors


def save_polars(prototypes: Prototypes | PrototypeHead | Tensor, path: str | os.PathLike[str]) -> None:
    """Write prototypes as one of their ``.npy`` files, [C, D] float32, atomically.

    Args:
        prototypes: unit rows; of a head those in the order of the labels, since their code has no assignment.
        path: a name that ends in ``.npy``.

    Raises:
        TypeError, ValueError: another suffix, not a matrix, rows that are not unit.
    """
    if not str(path).endswith(".npy"):
        raise ValueError(f"cannot write prototypes of HPN to {path}; expected a name that ends in .npy")
    make(rows_by_label(prototypes), 2.0, "file").save(path)


def squared_cosine_loss(output: Tensor, target: Tensor) -> Tensor:
    """Their ``(1 - nn.CosineSimilarity(eps=1e-9)(output, target)).pow(2).sum()``, with its gradient in one pass.

    Args:
        output: features [B, D], any float dtype.
        target: unit rows [B, D], such as ``polars[labels]``.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes that do not match, rows that are not unit, NaN in the features (on the CPU).

    Source: Mettes et al., "Hyperspherical Prototype Networks", NeurIPS 2019.
    """
    return squared_cosine_sum(output, target)
