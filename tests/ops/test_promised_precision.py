"""What a precision promises beside many others: ``medium`` 1e-2 and ``high`` 1e-3 of the tangent gradient at any C."""

from __future__ import annotations

import pytest
import torch

from fastproto.cpu.hardware import quick_bfloat16
from fastproto.functional import gaussian_potential

from ..kernel_device import DEVICE  # first: it skips the file where the kernels cannot run

# isort: split
from fastproto_kernels import gaussian_potential as op
from fastproto_kernels.lib import rounding
from fastproto_kernels.lib import tile_sizes as tiles

from ..rounded_pass import exact_pull, random_rows, random_weights, rounded_pull, tangent_error

INDEX = torch.arange(32)


@pytest.mark.parametrize(
    ("count", "dim", "t", "weights", "dtype", "before", "after"),
    [
        (20_000, 8, 2.0, "none", torch.float16, 7e-3, 1e-3),
        (20_000, 16, 4.0, "none", torch.float16, 3.5e-3, 1.5e-3),
        (20_000, 32, 2.0, "some", torch.bfloat16, 1.5e-2, 4e-3),
        (20_000, 32, 4.0, "few", torch.bfloat16, 1e-2, 7e-3),
        (20_000, 32, 2.0, "signed", torch.bfloat16, 0, 5e-3),
    ],
)
def test_moments_give_back_what_rounding_took(
    count: int, dim: int, t: float, weights: str, dtype: torch.dtype, before: float, after: float
) -> None:
    w, omega = random_rows(count, dim), random_weights(weights, count)
    truth = exact_pull(w, INDEX, t, omega)
    potential, pull, lost = rounded_pull(w, INDEX, t, omega, dtype, 1)
    assert tangent_error(w[INDEX], pull, truth) >= before
    assert rounding.rounding_shows("medium", t, dtype, 1, count, dim)
    rounding.correct_pull_(pull, potential, lost, w.to(dtype), t=t, weights=omega)
    assert tangent_error(w[INDEX], pull, truth) <= after


def test_a_centre_moves_the_correction_as_the_potential() -> None:
    w, t, centre = random_rows(3000, 16), 3.0, torch.tensor([0.75])
    omega = random_weights("signed", 3000)
    potential, pull, lost = rounded_pull(w, INDEX, t, omega, torch.bfloat16, 1)
    moved, scale = pull.clone(), float(torch.exp(2 * t * (1 - centre)))
    rounding.correct_pull_(moved.mul_(scale), potential * scale, lost, w, t=t, weights=omega, centre=centre)
    rounding.correct_pull_(pull, potential, lost, w, t=t, weights=omega)
    torch.testing.assert_close(moved / scale, pull, rtol=1e-5, atol=1e-6)


def test_mean_potential_is_that_of_the_sphere() -> None:
    """On the circle I₀ and I₁, in three dimensions sinh(2t)/2t; the mean over random rows anywhere."""
    assert rounding.hypergeometric(1.5, 4.0) == pytest.approx(torch.tensor(4.0, dtype=torch.float64).sinh().item() / 4)
    two = torch.tensor(4.0, dtype=torch.float64)
    assert rounding.share_across(2.0, 2) == pytest.approx(float(torch.special.i1(two) / torch.special.i0(two) / 2))
    cosines = random_rows(200_000, 24)[:, 0].double()
    assert rounding.mean_potential(2.0, 24) == pytest.approx(float(torch.exp(4 * (cosines - 1)).mean()), rel=5e-3)


def test_the_kernel_corrects_and_knows_when() -> None:
    """At C = 2000 and D = 8 rounding takes 2.5e-3; few others, or float32 operands, need no correction."""
    w = random_rows(2000, 8).to(DEVICE)
    index = torch.arange(16, device=DEVICE)
    _, pull = op.gaussian_potential(
        w[:16],
        w,
        t=2.0,
        self_index=index,
        precision="medium",
        tile=tiles.Tile(16, 128) if DEVICE.type == "cpu" else None,
    )
    assert tangent_error(w[:16].cpu(), pull.cpu(), exact_pull(w.cpu(), index.cpu(), 2.0)) <= 1e-3
    assert not rounding.rounding_shows("medium", 2.0, torch.float16, 1, 32_768, 512)
    assert not rounding.rounding_shows("highest", 2.0, torch.float32, 1, 10**7, 2)
    assert rounding.rounding_shows("high", 2.0, torch.bfloat16, 3, 10**6, 32)


@pytest.mark.parametrize("precision", ["medium", "high"])
def test_few_dimensions_take_more_pieces(precision: str) -> None:
    assert tiles.promised_at(7, precision, 2.0, False) == "higher"
    assert tiles.promised_at(2, precision, 5.0, False) == tiles.promised_at(2, precision, 2.0, True) == "highest"
    assert tiles.promised_at(8, precision, 2.0, True) == precision and tiles.promised_at(2, "tf32", 2.0, True) == "tf32"


@pytest.mark.skipif(not quick_bfloat16(torch.device("cpu")), reason="float32 products, which round nothing")
@pytest.mark.parametrize("weights", ["none", "some", "signed"])
@pytest.mark.parametrize(("t", "dim"), [(2.0, 96), (4.0, 320)])
def test_the_processor_keeps_the_promise(t: float, dim: int, weights: str) -> None:
    """Without the correction (20,000, 96) had 9.7e-3 and 1.06e-3, and both grew with C; at t = 4, 1.5e-2."""
    w, omega = random_rows(12_000, dim), random_weights(weights, 12_000)
    truth = exact_pull(w, INDEX, t, omega)
    for precision, bound in (("medium", 5e-3), ("high", 1e-3)):
        _, pull = gaussian_potential(w[INDEX], w, t=t, self_index=INDEX, weights=omega, precision=precision)
        assert tangent_error(w[INDEX], pull, truth) <= bound, precision


@pytest.mark.skipif(not quick_bfloat16(torch.device("cpu")), reason="float32 products, which round nothing")
def test_points_among_themselves_first_and_last() -> None:
    """Each pair is computed once: the last points meet most others as the right factor of a product."""
    w = random_rows(4000, 96)
    index = torch.cat([torch.arange(24), torch.arange(3976, 4000)])
    weights = random_weights("some", 4000)
    truth = exact_pull(w, index, 4.0, weights)
    _, pull = gaussian_potential(w, t=4.0, weights=weights, precision="medium")
    for some in (slice(0, 24), slice(24, None)):
        assert tangent_error(w[index[some]], pull[index[some]], truth[some]) <= 5e-3
