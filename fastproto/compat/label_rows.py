"""Prototypes as rows in the order of the labels, for code that knows no assignment."""

from __future__ import annotations

from torch import Tensor

from fastproto.head import PrototypeHead
from fastproto.prototypes import Prototypes
from fastproto.support.checks import check_matrix, check_unit_rows


def rows_by_label(prototypes: Prototypes | PrototypeHead | Tensor) -> Tensor:
    """Unit rows [C, D]: row y is the prototype of label y.

    Raises:
        TypeError, ValueError: not a matrix of floating-point numbers, rows that are not unit.
    """
    rows = prototypes.weight_by_label() if isinstance(prototypes, PrototypeHead) else prototypes
    rows = rows.vectors if isinstance(rows, Prototypes) else rows
    check_matrix("prototypes", rows, min_rows=2)
    check_unit_rows("prototypes", rows)
    return rows
