"""Classifiers of a simplex equiangular tight frame (Yang et al., NeurIPS 2022): their tensor and their losses."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from fastproto.compat.label_rows import rows_by_label
from fastproto.compat.target_rows import batch_mean, dot_products, dot_regression
from fastproto.head import PrototypeHead
from fastproto.prototypes import Prototypes
from fastproto.prototypes.files import make
from fastproto.prototypes.quality import unit_rows
from fastproto.support.array_files import check_torch_archive
from fastproto.support.atomic_files import write_memory
from fastproto.support.checks import check_matrix


def simplex_of(orthogonal: Tensor) -> Tensor:
    """The simplex √(C/(C-1)) · P (I - 1/C) [D, C], unit columns, of their orthogonal matrix P [D, C].

    Raises:
        ValueError: columns that are not orthonormal.
    """
    check_matrix("orthogonal", orthogonal, min_rows=2)
    count = orthogonal.shape[1]
    deviation = float((orthogonal.T @ orthogonal - torch.eye(count).to(orthogonal)).abs().max())
    if not deviation <= 1e-4:  # also NaN
        raise ValueError(
            f"orthogonal is [{len(orthogonal)}, {count}] with columns {deviation:.2g} away from orthonormal ones; "
            "expected D >= C and orthonormal columns: pass torch.linalg.qr(matrix).Q"
        )
    return math.sqrt(count / (count - 1)) * (orthogonal - orthogonal.mean(1, keepdim=True))


def from_etf(matrix: Tensor) -> Prototypes:
    """Prototypes of their tensor ``ori_M`` [D, C]: row y is column y, normalised.

    Raises:
        TypeError, ValueError: not a matrix, NaN, a zero column.
    """
    check_matrix("matrix", matrix, min_rows=2)
    return make(unit_rows("transposed matrix", matrix.T.float()), 2.0, "simplex")


def to_etf(prototypes: Prototypes | PrototypeHead | Tensor) -> Tensor:
    """The tensor [D, C] that their code multiplies features with; of a head in the order of the labels.

    Raises:
        TypeError, ValueError: not a matrix, rows that are not unit.
    """
    return rows_by_label(prototypes).T.contiguous()


def load_etf(path: str | os.PathLike[str]) -> Prototypes:
    """Read their tensor from a file of ``torch.save``; nothing in it is executed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, or one that holds no matrix [D, C].
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file {path}; expected a tensor [D, C] that torch.save has written")
    try:
        check_torch_archive(path)
        matrix = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged archives, pickles and tensors raise many types
        raise ValueError(f"{path} could not be read; expected a tensor [D, C] that torch.save has written") from error
    if not isinstance(matrix, Tensor):
        raise ValueError(f"{path} holds a {type(matrix).__name__}; expected a tensor [D, C]")
    return from_etf(matrix)


def save_etf(prototypes: Prototypes | PrototypeHead | Tensor, path: str | os.PathLike[str]) -> None:
    """Write :func:`to_etf` with ``torch.save``, atomically; it raises the same errors."""
    content = io.BytesIO()
    torch.save(to_etf(prototypes).cpu(), content)
    write_memory(Path(path), content)


def dot_loss(
    output: Tensor,
    label: Tensor,
    cur_M: Tensor,
    classifier: object = None,
    criterion: str = "reg_dot_loss",
    H_length: Tensor | None = None,
    reg_lam: float = 0,
) -> Tensor:
    """Their ``dot_loss``: dot regression, or the mean of -x·m for ``criterion="dot_loss"``.

    Args:
        output: features [B, D], normalised in their code.
        label: int64 [B].
        cur_M: [D, C], columns of any length above zero.
        classifier: not used.
        criterion: ``reg_dot_loss`` for the mean of (x·m - ‖x‖·‖m‖)² / (2‖x‖), or ``dot_loss``.
        H_length: [B], the length of the features; None computes it.
        reg_lam: adds ``reg_lam`` times the mean ‖x‖ to ``reg_dot_loss``.

    Raises:
        ValueError: another criterion, shapes that do not match.

    Source: Yang et al., "Inducing Neural Collapse in Imbalanced Learning", NeurIPS 2022.
    """
    if criterion not in ("reg_dot_loss", "dot_loss"):
        raise ValueError(f"criterion is {criterion!r}; expected 'reg_dot_loss' or 'dot_loss'")
    rows = cur_M.T[label]
    if criterion == "dot_loss":
        return -batch_mean(dot_products(output, rows))
    return dot_regression(output, rows, length=H_length, reg_lam=reg_lam)


class DRLoss(nn.Module):
    """Dot regression as a module, as in code for few-shot learning: ``loss_weight`` times the loss of :func:`dot_loss`.

    ``forward(feat, target)`` takes features [B, D] and the column of each sample as rows [B, D]. ``h_norm2`` and
    ``m_norm2`` [B] stand for the lengths ‖x‖ and ‖m‖; None is 1. ``reg_lambda`` has no effect in their code either.
    """

    def __init__(self, reduction: str = "mean", loss_weight: float = 1.0, reg_lambda: float = 0.0) -> None:
        super().__init__()
        if reduction != "mean":
            raise ValueError(f"reduction is {reduction!r}; expected 'mean', the only one of their code")
        self.loss_weight = loss_weight

    def forward(
        self,
        feat: Tensor,
        target: Tensor,
        h_norm2: Tensor | None = None,
        m_norm2: Tensor | None = None,
        avg_factor: None = None,
    ) -> Tensor:
        """The loss, a scalar."""
        one = feat.new_ones(len(feat))
        length, row_length = (one if given is None else given for given in (h_norm2, m_norm2))
        return self.loss_weight * dot_regression(feat, target, length=length, row_length=row_length)
