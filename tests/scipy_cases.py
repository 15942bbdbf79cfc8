"""Matrices of every shape and kind, as SciPy's linear_sum_assignment takes or refuses them."""

from __future__ import annotations

import math
import warnings
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment as by_scipy

from fastproto.assignment import linear_sum_assignment
from fastproto.assignment.scipy_form import matched

Array = np.ndarray[Any, Any]
Generator = np.random.Generator
NUMBERS = ["uniform", "ties", "whole", "two values", "equal", "negative", "tiny", "large", "huge", "sums", "bool"]
FORMS = ["array", "array", "array", "list", "float32", "float16", "Fortran", "strided", "big-endian"]
MARKS = [None, None, None, "inf", "inf", "row of inf", "nan", "-inf", "both"]
WRONG = ["complex", "object", "long double", "dates", "text", "vector", "cube", "ragged", "None", "huge int", "bytes"]


def shape_of(rng: Generator) -> tuple[int, int]:
    most = 13 if rng.random() < 0.95 else 61
    rows = int(rng.integers(0, most))
    return (rows, rows) if rng.random() < 0.4 else (rows, int(rng.integers(0, most)))


def numbers(rng: Generator, kind: str, shape: tuple[int, int]) -> Array:
    values = rng.uniform(0, 1, shape)
    if kind == "ties":
        return rng.integers(0, 4, shape).astype(float)
    if kind == "whole":
        return rng.integers(-1000, 1000, shape).astype(rng.choice(["i8", "i4", "i2"]))
    if kind == "two values":
        return np.where(values < 0.5, 0.1, 0.3)
    if kind == "equal":
        return np.full(shape, rng.normal())
    if kind == "bool":
        return values < 0.5
    if kind == "sums":
        return values[:, :1] + values[:1] if values.size else values
    factor = {"negative": -1, "tiny": 1e-300, "large": 1e12, "huge": 1e308}.get(kind, 1)
    return values * factor


def marked(rng: Generator, cost: Array, mark: str | None) -> Array:
    """With forbidden pairs, or with numbers that are refused."""
    if mark is None or not cost.size:
        return cost
    cost = cost.astype(float)
    if mark == "row of inf":
        cost[rng.integers(len(cost))] = np.inf
    else:
        values = {"inf": [np.inf], "nan": [np.nan], "-inf": [-np.inf], "both": [np.inf, -np.inf]}[mark]
        for value in values:
            cost[rng.random(cost.shape) < rng.choice([0.05, 0.3, 0.7])] = value
    return cost


def formed(cost: Array, form: str) -> Any:
    if form == "list":
        return cost.tolist()
    if form in ("float32", "float16"):
        with np.errstate(over="ignore"):
            return cost.astype(form)
    if form == "Fortran":
        return np.asfortranarray(cost)
    if form == "strided":
        return np.repeat(cost, 2, axis=0)[::2]
    return cost.astype(cost.dtype.newbyteorder(">")) if form == "big-endian" else cost


def wrong(rng: Generator, kind: str) -> Any:
    values = rng.uniform(0, 1, (3, 3))
    return {
        "complex": values * 1j,
        "object": values.astype(object),
        "long double": values.astype(np.longdouble),
        "dates": values.astype("m8[s]"),
        "text": [["a", "1"], ["2", "3"]],
        "vector": values[0],
        "cube": values[None],
        "ragged": [[1, 2], [3]],
        "None": [[1, None], [Fraction(1, 3), 2]],
        "huge int": [[10**400, 1], [1, 2]],
        "bytes": np.array([[b"1", b"2"], [b"3", b"4"]]),
    }[kind]


def case_of(seed: int) -> tuple[Any, bool, Any]:
    """(cost, maximize, what SciPy is given: huge numbers are divided, because their sums overflow in SciPy)."""
    rng = np.random.default_rng(seed)
    maximize = bool(rng.random() < 0.4)
    if rng.random() < 0.05:
        given = wrong(rng, str(rng.choice(WRONG)))
        return given, maximize, given
    kind = str(rng.choice(NUMBERS))
    cost = numbers(rng, kind, shape_of(rng))
    mark = MARKS[rng.integers(len(MARKS))]
    cost = marked(rng, cost, mark)
    if maximize and mark and rng.random() < 0.8 and cost.dtype == float:
        cost = -cost
    given = formed(cost, FORMS[rng.integers(len(FORMS))])
    return (
        given,
        maximize,
        np.ldexp(np.asarray(given, float).reshape(cost.shape), -40) if kind == "huge" and cost.size else given,
    )


def total(cost: Array, rows: Array, columns: Array) -> tuple[float, float]:
    """Sum and sum of magnitudes, both divided by 2^40: the sum of huge numbers then fits float64."""
    some = np.ldexp(cost[rows, columns], -40)
    return math.fsum(some), math.fsum(abs(some))


def check(seed: int) -> str:
    """Raise unless ours and SciPy agree on this case; the name of SciPy's error, or what kind of result it gave."""
    given, maximize, scipys = case_of(seed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = by_scipy(scipys, maximize)
    except (TypeError, ValueError, OverflowError) as error:
        with pytest.raises(type(error), match="expected"):
            linear_sum_assignment(given, maximize)
        return type(error).__name__
    cost = np.asarray(given, dtype=np.float64).reshape(np.shape(given))
    best, size = total(cost, *theirs)
    for rows, columns in (linear_sum_assignment(given, maximize), matched(-cost if maximize else cost, scipy_below=0)):
        assert rows.dtype == columns.dtype == np.int64
        assert np.array_equal(rows, np.sort(rows)) and len(set(rows)) == len(rows) == len(set(columns))
        assert len(rows) == min(cost.shape)
        assert total(cost, rows, columns)[0] == pytest.approx(best, rel=0, abs=1e-12 * size), seed
    return "empty" if not cost.size else "square" if len(cost) == cost.shape[1] else "rectangle"
