"""The nearest prototypes against a stable sort of all cosines."""

from __future__ import annotations

import pytest
import torch

from fastproto import functional as F
from fastproto import reference
from fastproto.backend import use_backend
from fastproto.cpu.nearest_prototypes import nearest_prototypes as in_numba
from fastproto.ops.nearest_prototypes import streaming_top

from ..helpers import SHAPES, unit_rows


@pytest.mark.parametrize(("b", "c", "d"), [*SHAPES, (0, 4, 3)])
@pytest.mark.parametrize("k", [1, 2, 20])
def test_nearest_prototypes(b: int, c: int, d: int, k: int) -> None:
    k = min(k, c)
    features, prototypes = torch.randn(b, d, dtype=torch.float64), unit_rows(c, d, torch.float64)
    z = reference.normalise(features)
    value, index = (z @ prototypes.T).sort(dim=1, descending=True, stable=True)
    for cosines, indices in (F.nearest_prototypes(features, prototypes, k), streaming_top(z, prototypes, k, block=7)):
        torch.testing.assert_close(cosines, value[:, :k])
        assert torch.equal(indices, index[:, :k])


@pytest.mark.parametrize(("b", "c", "k"), [(13, 333, 5), (1, 7, 7), (0, 4, 2), (9, 300, 64), (5, 200, 90)])
def test_blocks_on_both_backends_are_the_same(b: int, c: int, k: int) -> None:
    # unit rows whose cosines are exact, and mostly equal
    features, prototypes = (torch.randint(0, 2, (rows, 4)) - 0.5 for rows in (b, c))
    expected, order = streaming_top(features, prototypes, k)
    found = [
        streaming_top(features, prototypes, k, block=150),
        in_numba(features, prototypes, k, rows=4, columns=150),
    ]
    for backend in ("auto", "torch", "numba"):
        with use_backend(backend):
            found.append(F.nearest_prototypes(features, prototypes, k))
    for values, indices in found:
        assert torch.equal(values, expected) and torch.equal(indices, order)


@pytest.mark.parametrize("k", [1, 3, 17])
def test_equal_cosines_come_in_order_of_index(k: int) -> None:
    prototypes = torch.eye(3).repeat(6, 1)  # rows 0, 3, 6, ... are the same
    features = torch.tensor([[1.0, 0.0, 0.0]])
    order = [*range(0, 18, 3), *(i for i in range(18) if i % 3)]
    for found in (
        F.nearest_prototypes(features, prototypes, k),
        streaming_top(features, prototypes, k, block=4),
        in_numba(features, prototypes, k, columns=4),
    ):
        assert found[1][0].tolist() == order[:k]


def test_nearest_prototypes_errors() -> None:
    features, prototypes = torch.randn(4, 3), unit_rows(6, 3)
    for arguments, message in (
        ((features, prototypes, 7), "1..6"),
        ((features, prototypes, 0), "1..6"),
        ((features, prototypes * 2, 1), "unit rows"),
        ((torch.full((4, 3), float("nan")), prototypes, 1), "NaN"),
        ((torch.randn(4, 2), prototypes, 1), "same D"),
    ):
        with pytest.raises(ValueError, match=message):
            F.nearest_prototypes(*arguments)
