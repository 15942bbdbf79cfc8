"""What the long tests share: many inputs within a bound of time, and what holds of every call."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from torch import Tensor

T = TypeVar("T")
EXAMPLES = int(os.environ.get("FASTPROTO_EXAMPLES", "10000"))  # where one takes at most QUICK seconds
QUICK = 5e-3
SECONDS = 120.0  # else
ROUND = 500  # examples of one seed: hypothesis cannot be told to stop after a time


def explore(name: str, cases: st.SearchStrategy[T], check: Callable[[T], None], examples: int = EXAMPLES) -> None:
    """``check`` on so many cases, with figures printed; where a case takes more than 5 ms, for two minutes.

    Times are those of this process, so that a busy machine does not make for fewer cases.
    """
    began, count, failed, turn = time.process_time(), 0, False, 0

    def over() -> bool:
        seconds = time.process_time() - began
        return not failed and seconds > SECONDS and seconds > QUICK * count

    while count < examples and not over():
        before = count

        @seed(turn)  # the same examples each time
        @settings(
            max_examples=min(ROUND, examples - count),
            database=None,
            deadline=None,  # the bound is on all of them together
            suppress_health_check=list(HealthCheck),  # these warn of slow or large cases, which are what is asked for
        )
        @given(cases)
        def some(case: T) -> None:
            nonlocal count, failed
            if over():
                return
            try:
                check(case)
            except BaseException:
                failed = True  # what follows are attempts to make the case smaller: they must all run
                raise
            count += 1

        some()
        turn += 1
        if count == before:  # there are no other cases
            break
    print(f"\n{name}: {count} examples, {time.process_time() - began:.1f} s", flush=True)


def eps(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    return torch.float64 if any(x.dtype == torch.float64 for x in tensors) else torch.float32


def cosine_error(dim: int, dtype: torch.dtype) -> float:
    """What rounding can make of a cosine of D products, features and norm included."""
    return (dim + 8) * eps(dtype)


def same(a: Any, b: Any) -> bool:
    """Bit for bit, NaN beside NaN."""
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(plain(a), plain(b), equal_nan=True)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def plain(x: Tensor) -> np.ndarray[Any, Any]:
    x = x.detach()
    return (x.float() if x.is_floating_point() and x.dtype != torch.float64 else x).numpy()


def tensors_in(*values: Any) -> list[Tensor]:
    return [x for x in values if isinstance(x, Tensor)]


def twice(function: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """The result, the same both times; no tensor that is given has changed."""
    given_ = tensors_in(*arguments, *options.values())
    before = [x.detach().clone() for x in given_]
    first, second = (function(*arguments, **options) for _ in range(2))
    assert same(first, second), f"two results: {first} and {second}"
    assert all(same(a, b) for a, b in zip(before, given_, strict=True)), "what was given has changed"
    return first


def refused(function: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    """A TypeError or ValueError in words, with nothing changed that was given."""
    given_ = tensors_in(*arguments, *options.values())
    before = [x.detach().clone() for x in given_]
    with pytest.raises((TypeError, ValueError)) as caught:
        function(*arguments, **options)
    assert len(str(caught.value)) > 20 and "\n" not in str(caught.value), str(caught.value)
    assert all(same(a, b) for a, b in zip(before, given_, strict=True)), "what was given has changed"


def within(ours: Tensor, truth: Tensor, allowed: Tensor | float) -> None:
    """Every number is as near to the truth as allowed; the worst is named."""
    assert ours.shape == truth.shape, f"{ours.shape} instead of {truth.shape}"
    error = (ours.detach().double() - truth.detach().double()).abs()
    excess = error / (torch.as_tensor(allowed, dtype=torch.float64) + 1e-300)
    if excess.numel() and not bool((excess <= 1).all()):
        flat = int(excess.nan_to_num(nan=torch.inf).argmax())
        at = tuple(int(i) for i in np.unravel_index(flat, ours.shape))
        raise AssertionError(
            f"{float(excess.flatten()[flat]):.2f} times the allowed error at {at}: {ours[at].item()!r} instead of "
            f"{truth[at].item()!r}"
        )


def reduced(loss: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return loss
    return loss.sum() / max(len(loss), 1) if reduction == "mean" else loss.sum()
