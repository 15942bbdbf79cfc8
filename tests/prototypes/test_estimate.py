"""Bounds, closed forms, codes and the quality of prototypes, against published values and brute force."""

from __future__ import annotations

import math

import pytest
import torch

from fastproto.prototypes import (
    binary_code,
    closed_form,
    code_capacity,
    estimate_prototypes,
    max_cosine_bound,
    measure_prototypes,
    uniformity_bound,
)
from fastproto.prototypes.bounds import quadrature
from fastproto.prototypes.closed_forms import fit_tilted, orthogonal_simplices, simplex, tilted
from fastproto.prototypes.codes import code_cosine

# D, C: universal lower bound of L_uni at t = 2 and Levenshtein's of the max cosine, from 80-digit arithmetic
BOUNDS = [
    (3, 100, -2.153138, 0.92748),
    (5, 100, -2.79676, 0.64352),
    (10, 100, -3.469082, 0.27845),
    (16, 100, -3.725871, 0.15330),
    (25, 100, -3.880257, 0.06876),
    (32, 100, -3.940408, 0.03382),
    (25, 200, -3.79711, 0.12912),
    (50, 200, -3.939783, 0.03672),
    (84, 100, -4.034864, 0.0),
    (128, 1000, -3.959191, 0.03659),
    (512, 1000, -4.001125, 0.0),
    (256, 10000, -3.971255, 0.04996),
    (512, 10000, -3.986641, 0.02380),
]


def brute(w: torch.Tensor, t: float) -> tuple[float, float, float, float, float]:
    w = torch.nn.functional.normalize(w.double(), dim=1)
    s = (w @ w.T).clamp(-1, 1)
    off = s[~torch.eye(len(w), dtype=torch.bool)]
    nearest = (s - 3 * torch.eye(len(w), dtype=torch.float64)).max(1).values
    value = torch.logsumexp(2 * t * (off - 1), 0) - math.log(len(off))
    return float(value), float(off.max()), float(nearest.mean()), float(off.min()), float(off.acos().rad2deg().mean())


# --- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dim", "classes", "uniformity", "cosine"), BOUNDS)
def test_bounds_equal_the_published_table(dim: int, classes: int, uniformity: float, cosine: float) -> None:
    assert uniformity_bound(classes, dim) == pytest.approx(uniformity, abs=6e-6 if dim in (5, 25) else 6e-7)
    assert max_cosine_bound(classes, dim) == pytest.approx(cosine, abs=6e-6)


def test_bounds_of_sharp_codes_are_their_values() -> None:
    assert max_cosine_bound(12, 3) == pytest.approx(1 / math.sqrt(5), abs=1e-12)
    assert max_cosine_bound(240, 8) == pytest.approx(0.5, abs=1e-12)
    assert max_cosine_bound(196560, 24) == pytest.approx(0.5, abs=1e-12)  # the Leech lattice's shortest vectors
    cosines = [(-1.0, 1), (-0.5, 4600), (-0.25, 47104), (0.0, 93150), (0.25, 47104), (0.5, 4600)]
    leech = math.log(sum(count * math.exp(4 * (s - 1)) for s, count in cosines) / 196559)
    assert uniformity_bound(196560, 24) == pytest.approx(leech, abs=1e-12)


@pytest.mark.parametrize(
    ("classes", "dim"), [(2, 2), (7, 2), (5, 3), (100, 3), (3000, 3), (9, 8), (10**6, 64), (50, 999)]
)
def test_quadrature_is_exact_on_low_moments(classes: int, dim: int) -> None:
    nodes, weights = quadrature(classes, dim)
    assert weights.min() > -1e-12 and nodes.min() >= -1 - 1e-12 and nodes.max() < 1
    assert weights.sum() == pytest.approx(1 - 1 / classes, abs=1e-12)
    assert weights @ nodes == pytest.approx(-1 / classes, abs=1e-12)
    if classes > dim + 1:
        assert weights @ nodes**2 == pytest.approx(1 / dim - 1 / classes, abs=1e-12)


def test_bounds_of_the_largest_cases() -> None:
    assert -4 < uniformity_bound(10**6, 64) < -3.87
    assert 0.25 < max_cosine_bound(10**6, 64) < 0.28
    assert uniformity_bound(1000, 64, 4096.0) < -7000  # no underflow at a sharp potential


# --- quality ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "dim"), [(2, 2), (7, 3), (512, 8), (513, 8), (1100, 5)])
@pytest.mark.parametrize("t", [0.5, 2.0, 3000.0])
def test_quality_equals_brute_force(classes: int, dim: int, t: float) -> None:
    w = 3 * torch.randn(classes, dim, generator=torch.Generator().manual_seed(classes))
    q = measure_prototypes(w, t)
    ours = (q.uniformity, q.max_cosine, q.mean_max_cosine, q.min_cosine, q.mean_angle)
    assert ours == pytest.approx(brute(w, t), rel=1e-11, abs=1e-11)
    assert q.uniformity >= q.uniformity_bound - 1e-12 and q.max_cosine >= q.max_cosine_bound - 1e-12


def test_quality_of_coincident_points() -> None:
    w = torch.ones(4, 3)
    q = measure_prototypes(w)
    assert q.max_cosine == pytest.approx(1.0) and q.uniformity == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("w", [torch.zeros(3, 3), torch.ones(1, 3), torch.ones(3, 1), torch.full((3, 3), torch.nan)])
def test_quality_refuses_what_has_no_direction(w: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="expected"):
        measure_prototypes(w)


@pytest.mark.parametrize("t", [0.0, -1.0, math.inf, math.nan])
def test_quality_refuses_a_bad_sharpness(t: float) -> None:
    with pytest.raises(ValueError, match="expected a sharpness > 0"):
        measure_prototypes(torch.eye(3), t)


# --- closed forms ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("classes", "dim", "method"),
    [
        (7, 2, "polygon"),
        (3, 2, "polygon"),
        (2, 5, "simplex"),
        (4, 3, "simplex"),
        (100, 99, "simplex"),
        (100, 200, "simplex"),
        (100, 50, "cross_polytope"),
        (12, 3, "icosahedron"),
        (16, 5, "e8_section"),
        (27, 6, "e8_section"),
        (56, 7, "e8_section"),
        (240, 8, "e8"),
    ],
)
@pytest.mark.parametrize("objective", ["uniform", "max_cosine"])
def test_optimal_closed_forms_reach_both_bounds(classes: int, dim: int, method: str, objective: str) -> None:
    found = estimate_prototypes(classes, dim, objective=objective)
    q = found.quality
    assert found.method == method and found.passes == 0 and found.vectors.shape == (classes, dim)
    assert q.uniformity == pytest.approx(q.uniformity_bound, abs=1e-6)  # float32 vectors
    assert q.max_cosine == pytest.approx(q.max_cosine_bound, abs=3e-7)


def test_sharp_codes_are_exact_in_float64() -> None:
    for classes, dim in [(12, 3), (16, 5), (27, 6), (56, 7), (240, 8)]:
        made = closed_form(classes, dim)
        assert made is not None
        assert measure_prototypes(made[0]).uniformity == pytest.approx(uniformity_bound(classes, dim), abs=1e-12)
    made = closed_form(120, 4)
    assert made is not None and made[1] == "600_cell"
    assert measure_prototypes(made[0]).max_cosine == pytest.approx((1 + math.sqrt(5)) / 4, abs=1e-12)
    assert len(made[0].round(decimals=6).unique(dim=0)) == 120


def test_simplex_has_one_cosine() -> None:
    for count in (2, 3, 10, 500):
        gram = simplex(count) @ simplex(count).T
        expected = torch.full_like(gram, -1 / (count - 1)).fill_diagonal_(1.0)
        torch.testing.assert_close(gram, expected, rtol=0, atol=1e-13)


# L_uni of pairs and one simplex, and of the tilted form, at t = 2
@pytest.mark.parametrize(
    ("classes", "dim", "pairs", "slanted"),
    [
        (10, 7, -4.25771873, -4.24475897),
        (100, 90, -4.03470681, -4.03438267),
        (100, 84, -4.03092679, -4.03066138),
        (100, 67, -4.02029588, -4.02023509),
        (100, 64, -4.01843245, -4.01841168),
        (100, 60, -4.01595470, -4.01598795),
        (100, 52, -4.01105058, -4.01116581),
        (1000, 512, -4.00105388, -4.00105554),
    ],
)
def test_between_simplex_and_cross_polytope(classes: int, dim: int, pairs: float, slanted: float) -> None:
    spread = estimate_prototypes(classes, dim, objective="max_cosine")
    assert spread.method == "pairs_and_simplex"
    assert spread.quality.max_cosine == pytest.approx(0.0, abs=1e-7)
    assert spread.quality.uniformity == pytest.approx(pairs, abs=1e-7)
    value, h, b = fit_tilted(classes, dim, 2.0)
    assert value == pytest.approx(slanted, abs=1e-7)
    w = tilted(classes, dim, h, b)
    torch.testing.assert_close(w.norm(dim=1), torch.ones(classes, dtype=torch.float64), rtol=0, atol=1e-13)
    assert measure_prototypes(w).uniformity == pytest.approx(value, abs=1e-12)
    found = estimate_prototypes(classes, dim)
    assert found.quality.uniformity == pytest.approx(min(pairs, slanted), abs=1e-7)
    assert found.method == ("tilted" if slanted < pairs else "pairs_and_simplex")


def test_tilted_form_with_one_single_point() -> None:
    _, h, b = fit_tilted(9, 5, 2.0)
    w = tilted(9, 5, h, b)
    assert b == 1.0
    torch.testing.assert_close(w.norm(dim=1), torch.ones(9, dtype=torch.float64), rtol=0, atol=1e-13)


def test_balanced_simplices_win_for_a_flat_potential() -> None:
    assert estimate_prototypes(10, 7, t=0.5).method == "orthogonal_simplices"
    w = orthogonal_simplices([4, 3, 3], 7)
    assert measure_prototypes(w).max_cosine == pytest.approx(0.0, abs=1e-15)


# --- binary codes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("classes", "dim"), [(24, 4), (144, 8), (100, 8), (288, 16), (2112, 32), (1000, 64), (4224, 64), (700, 128)]
)
def test_binary_codes_keep_their_cosine(classes: int, dim: int) -> None:
    w = binary_code(classes, dim)
    assert w.shape == (classes, dim) and classes <= code_capacity(dim)
    torch.testing.assert_close(w.norm(dim=1), torch.ones(classes, dtype=torch.float64), rtol=0, atol=1e-12)
    assert measure_prototypes(w).max_cosine == pytest.approx(code_cosine(classes, dim), abs=1e-12)


def test_binary_codes_of_other_sizes_are_refused() -> None:
    assert code_capacity(100) == code_capacity(2) == 0
    assert code_capacity(256) == 66048
    for classes, dim in [(100, 10), (4225, 64)]:
        with pytest.raises(ValueError, match="expected at least"):
            estimate_prototypes(classes, dim, method="binary_code")


def test_binary_code_is_taken_where_descent_is_worse() -> None:
    found = estimate_prototypes(1000, 64, objective="max_cosine")
    assert found.method == "binary_code" and found.passes == 0
    assert found.quality.max_cosine == pytest.approx(0.125, abs=1e-7)
