"""Spherical codes from binary ones, for D = 2^m: many ±1 words of a max cosine that descent does not reach.

A word is (-1)^{q(x) + ℓ(x) + c} over the 2^m points x: ℓ runs over the linear forms, c over 0 and 1, q over a set of
quadratic forms. One q gives 2D words that are a cross-polytope; words of two q have cosines of at most 2^{-r/2}, r the
least rank of a difference of two forms. m even: Kerdock's set, D/2 forms, every difference of full rank m, cosine
1/√D (Kerdock 1972; with the axes these are the real mutually unbiased bases). m odd: Gold's set Tr(b x³), D forms, rank
m-1, cosine √(2/D) (Gold 1967).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastproto.support.checks import check_classes, default_cpu, whole

# A primitive polynomial of each degree, its bits the coefficients.
PRIMITIVE = {1: 0b11, 2: 0b111, 3: 0b1011, 4: 0b10011, 5: 0b100101, 6: 0b1000011, 7: 0b10001001, 8: 0b100011101}
PRIMITIVE |= {9: 0b1000010001, 10: 0b10000001001, 11: 0b100000000101}
Bits = NDArray[np.int64]


def code_capacity(dim: int) -> int:
    """The largest C of :func:`binary_code` in D dimensions: 0 unless D is a power of two in 4..2048."""
    dim = whole("dim", dim)
    degree = max(dim, 1).bit_length() - 1
    if dim != 1 << degree or not 2 <= degree <= 11:
        return 0
    forms = dim if degree % 2 else dim // 2
    return 2 * dim * (forms + 1)


def code_cosine(num_classes: int, dim: int) -> float:
    """The max cosine of :func:`binary_code`: 0 while one cross-polytope is enough."""
    if num_classes <= 2 * dim:
        return 0.0
    return math.sqrt((2 if (dim.bit_length() - 1) % 2 else 1) / dim)


def binary_code(num_classes: int, dim: int) -> Tensor:
    """The first C vectors [C, D] (float64, unit rows): cross-polytope after cross-polytope, opposite pairs together.

    Raises:
        ValueError: C < 2, D < 2, or C above :func:`code_capacity`.

    Source: Kerdock 1972 (D = 4^k); Gold 1967 (D = 2·4^k).
    """
    num_classes, dim = check_classes(num_classes, dim)
    if num_classes > code_capacity(dim):
        raise ValueError(
            f"a binary code in {dim} dimensions has {code_capacity(dim)} words; expected at least {num_classes}: "
            "make dim a power of two, or take fewer classes"
        )
    degree = dim.bit_length() - 1
    points = np.arange(dim)
    linear = 1 - 2 * _parity(points[:, None] & points[None, :])
    forms = _gold(degree) if degree % 2 else _kerdock(degree)
    blocks = []
    for start in range(0, num_classes, 2 * dim):
        index = start // (2 * dim)
        basis = linear * (1 - 2 * forms[index]) / math.sqrt(dim) if index < len(forms) else np.eye(dim)
        blocks.append(np.stack([basis, -basis], 1).reshape(2 * dim, dim))
    with default_cpu():
        return torch.from_numpy(np.concatenate(blocks)[:num_classes].astype(np.float64))


def _gold(degree: int) -> Bits:
    """Tr(b x³) for every b [D, D]."""
    field = _Field(degree)
    x = np.arange(1 << degree)
    cube = field.power(x, 3)
    return np.stack([field.trace(field.times(b, cube)) for b in x.tolist()])


def _kerdock(degree: int) -> Bits:
    """Σ_{i=1}^{(m-2)/2} Tr((b y)^{2^i + 1}) + e Tr(b y) at x = (y, e), for every b of GF(2^{m-1}) [D/2, D]."""
    field = _Field(degree - 1)
    y, forms = np.arange(1 << (degree - 1)), []
    for b in y.tolist():
        scaled = field.times(b, y)
        form = np.zeros_like(y)
        for i in range(1, (degree - 2) // 2 + 1):
            form ^= field.trace(field.power(scaled, (1 << i) + 1))
        forms.append(np.concatenate([form, form ^ field.trace(scaled)]))
    return np.stack(forms)


def _parity(values: Bits) -> Bits:
    for shift in (16, 8, 4, 2, 1):
        values = values ^ (values >> shift)
    return values & 1


class _Field:
    """GF(2^m) with a table of logarithms."""

    def __init__(self, degree: int) -> None:
        self.order = (1 << degree) - 1
        self.degree = degree
        self.exp = np.zeros(self.order, dtype=np.int64)
        element = 1
        for power in range(self.order):
            self.exp[power] = element
            element <<= 1
            if element >> degree:
                element ^= PRIMITIVE[degree]
        self.log = np.zeros(self.order + 1, dtype=np.int64)
        self.log[self.exp] = np.arange(self.order)

    def times(self, a: Bits | int, b: Bits) -> Bits:
        product: Bits = self.exp[(self.log[a] + self.log[b]) % self.order]
        return np.where((np.asarray(a) == 0) | (b == 0), 0, product)

    def power(self, a: Bits, exponent: int) -> Bits:
        return np.where(a == 0, 0, self.exp[(self.log[a] * exponent) % self.order])

    def trace(self, a: Bits) -> Bits:
        """a + a² + a⁴ + ...: 0 or 1."""
        total, term = np.zeros_like(a), a
        for _ in range(self.degree):
            total, term = total ^ term, self.power(term, 2)
        return total
