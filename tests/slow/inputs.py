"""Random inputs of the long tests, in every dtype and layout, and what no function takes."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import torch
from torch import Tensor

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
LAYOUTS = ["contiguous", "transposed", "every second column", "every second row", "offset"]


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The same numbers elsewhere in memory; what lies between them would show, if it were read."""
    rubbish = torch.full_like(x, torch.nan) if x.is_floating_point() else torch.full_like(x, torch.iinfo(x.dtype).max)
    if layout == "transposed":
        return x.T.contiguous().T
    if layout == "every second column":
        return torch.stack([x, rubbish], -1)[..., 0]
    if layout == "every second row":
        return torch.stack([x, rubbish], 1)[:, 0] if x.ndim else x
    if layout == "offset":
        return torch.cat([rubbish.reshape(-1)[:1], x.reshape(-1)])[min(1, x.numel()) :].view(x.shape)
    return x.clone(memory_format=torch.contiguous_format)


@st.composite
def shapes(draw: st.DrawFn, rows: int = 40, classes: int = 40, dim: int = 24) -> tuple[int, int, int]:
    """(B, C, D); B may be 0."""
    return draw(st.integers(0, rows)), draw(st.integers(2, classes)), draw(st.integers(2, dim))


def unit(rows: int, dim: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.randn(rows, dim, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(x, dim=1).to(dtype)


def features_of(
    rows: int,
    dim: int,
    dtype: torch.dtype,
    exponent: int,
    prototypes: Tensor,
    generator: torch.Generator,
    *,
    tiny: bool = True,
) -> Tensor:
    """Rows of about the length 10^exponent; some are zero, some tiny, some a prototype or its opposite."""
    x = torch.randn(rows, dim, generator=generator, dtype=torch.float64)
    kind = torch.randint(0, 12, (rows, 1), generator=generator)
    own = prototypes.double()[torch.randint(0, len(prototypes), (rows,), generator=generator)]
    x = torch.where(kind == 0, own, torch.where(kind == 1, -own, x)) * 10.0**exponent
    x = torch.where(kind == 2, torch.zeros_like(x), x)
    if tiny and dtype != torch.float16:  # shorter than what has a direction
        x = torch.where(kind == 3, x * 0 + 1e-15, x)
    return x.to(dtype)


def spoil(x: Tensor, value: float, generator: torch.Generator) -> Tensor:
    """A copy with ``value`` somewhere."""
    x = x.detach().clone(memory_format=torch.contiguous_format)
    x.view(-1)[int(torch.randint(0, x.numel(), (), generator=generator))] = value
    return x


def bad_floats(x: Tensor, generator: torch.Generator, *, rows_may_differ: bool = False) -> list[Any]:
    """What no function takes in place of a matrix of features, prototypes or means; see :func:`made`."""
    wrong: list[Any] = [
        None,
        lambda: x.tolist(),
        lambda: x.long(),
        lambda: x.to(torch.complex64),
        lambda: x[None],
        lambda: x[:, :1],
        lambda: x.bool(),
    ]
    if x.numel():
        wrong += [lambda value=value: spoil(x, value, generator) for value in (torch.nan, torch.inf, -torch.inf)]
        wrong += [lambda: x[:, 0]]
    if x.shape[1] > 2 and not rows_may_differ:
        wrong.append(lambda: x[:, 1:])
    if not rows_may_differ and len(x) > 1:
        wrong.append(lambda: x[1:])
    return wrong


def bad_labels(y: Tensor, classes: int) -> list[Any]:
    wrong: list[Any] = [
        None,
        lambda: y.int(),
        lambda: y.double(),
        lambda: y.tolist(),
        lambda: y[:, None],
        lambda: torch.cat([y, y.new_zeros(1)]),
    ]
    if len(y):
        values = (-1, classes, -(1 << 62), 1 << 62)
        wrong += [lambda value=value: torch.cat([y[1:], y.new_tensor([value])]) for value in values]
    return wrong


def made(value: Any) -> Any:
    """A bad input is made only where it is chosen."""
    return value() if callable(value) else value
