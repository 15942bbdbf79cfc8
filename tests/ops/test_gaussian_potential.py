"""The Gaussian potential: its errors, and eager and compiled calls. tests/cpu has its precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fastproto import functional as F
from fastproto.support.options import Precision

from ..helpers import unit_rows


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"points": 2 * unit_rows(3, 4)}, ValueError, "expected unit rows"),
        ({"points": torch.full((3, 4), float("nan"))}, ValueError, "NaN"),
        ({"points": unit_rows(3, 4).half()}, TypeError, "float32 beside torch.float16"),
        ({"points": unit_rows(3, 4).to(torch.complex64)}, TypeError, "complex64"),
        ({"others": unit_rows(5, 4).double()}, TypeError, "both float32 or both float64"),
        ({"others": unit_rows(5, 3)}, ValueError, "same D"),
        ({"precision": "low"}, ValueError, "'low'"),
        ({"t": -1.0}, ValueError, "sharpness"),
        ({"weights": torch.ones(3)}, ValueError, r"expected \[5\]"),
        ({"self_index": torch.tensor([0, 1, 5])}, ValueError, "0..4"),
    ],
)
def test_gaussian_potential_errors(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        F.gaussian_potential(**({"points": unit_rows(3, 4), "others": unit_rows(5, 4)} | arguments))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_gaussian_potential_equals_eager() -> None:
    w = unit_rows(9, 4)
    compiled = torch.compile(lambda w: F.gaussian_potential(w, t=3.0), fullgraph=True, backend="aot_eager")
    assert all(torch.equal(a, b) for a, b in zip(compiled(w), F.gaussian_potential(w, t=3.0), strict=True))


@pytest.mark.parametrize("precision", ["high", "medium"])
@pytest.mark.parametrize(("t", "rounds"), [(2.0, True), (4.1, False), (512.0, False)])
def test_sharp_potentials_are_never_rounded(
    precision: Precision, t: float, rounds: bool, quick_bfloat16: Callable[[bool], None]
) -> None:
    w = unit_rows(40, 100)
    plain = F.gaussian_potential(w, t=t)
    for quick in (False, True):
        quick_bfloat16(quick)
        ours = F.gaussian_potential(w, t=t, precision=precision)
        same = [torch.equal(a, b) for a, b in zip(ours, plain, strict=True)]
        assert same == [not (quick and rounds)] * 2


def test_points_without_others_have_no_index() -> None:
    w = unit_rows(6, 3)
    with pytest.raises(ValueError, match="without others"):
        F.gaussian_potential(w, self_index=torch.arange(6))
    with pytest.raises(ValueError, match=r"expected \[6\]"):
        F.gaussian_potential(w, weights=torch.ones(5))
