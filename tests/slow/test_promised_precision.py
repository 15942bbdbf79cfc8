"""``medium`` <= 1e-2 and ``high`` <= 1e-3 of the tangent gradient up to C = 10⁶: kernels emulated, and the processor.

Prints a line for each case; about five minutes on one core.
"""

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

pytestmark = pytest.mark.slow
PROMISED = {"medium": 1e-2, "high": 1e-3}
INDEX = torch.arange(48)
SIZES = [(1000, 8), (10_000, 16), (10_000, 32), (100_000, 8), (100_000, 16), (100_000, 32), (100_000, 128)]
SIZES += [(400_000, 64), (1_000_000, 8)]


def show(*facts: object) -> None:
    print(" ".join(str(fact) for fact in facts), flush=True)


@pytest.mark.parametrize("weights", ["none", "some", "few", "signed"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_kernels(size: tuple[int, int], weights: str) -> None:
    count, dim = size
    if weights != "none" and (dim < 32 or count > 400_000):
        pytest.skip("below D = 32 weights take float32 products; the largest size once")
    w, omega = random_rows(count, dim), random_weights(weights, count)
    for t in (1.0, 2.5, 4.0) if count <= 100_000 else (2.0,):
        truth = exact_pull(w, INDEX, t, omega)
        for precision, bound in PROMISED.items():
            dtype, pieces = tiles.operands_for(precision, t, omega is not None)
            potential, pull, lost = rounded_pull(w, INDEX, t, omega, dtype, pieces)
            before = tangent_error(w[INDEX], pull, truth)
            if rounding.rounding_shows(precision, t, dtype, pieces, count, dim):
                rounding.correct_pull_(pull, potential, lost, w.to(dtype), t=t, weights=omega)
            error = tangent_error(w[INDEX], pull, truth)
            show(size, weights, f"t={t} {precision} {dtype} x{pieces}: {before:.2e} -> {error:.2e}")
            assert error <= bound


@pytest.mark.skipif(not quick_bfloat16(torch.device("cpu")), reason="float32 products, which round nothing")
@pytest.mark.parametrize("weights", ["none", "some", "signed"])
@pytest.mark.parametrize("size", [(1000, 96), (30_000, 320), (300_000, 96)], ids=str)
def test_processor(size: tuple[int, int], weights: str) -> None:
    count, dim = size
    w, omega = random_rows(count, dim), random_weights(weights, count)
    for t in (1.0, 2.0, 4.0):
        truth = exact_pull(w, INDEX, t, omega)
        for precision, bound in PROMISED.items():
            _, pull = gaussian_potential(w[INDEX], w, t=t, self_index=INDEX, weights=omega, precision=precision)
            error = tangent_error(w[INDEX], pull, truth)
            show(size, weights, f"t={t} {precision} on the processor: {error:.2e}")
            assert error <= bound


@pytest.mark.parametrize("precision", PROMISED)
@pytest.mark.parametrize("dim", [2, 16])
def test_the_kernel_itself(dim: int, precision: str) -> None:
    """Under the interpreter without a GPU, so in float16 alone and in large tiles."""
    w = random_rows(50_000, dim).to(DEVICE)
    index = INDEX[:16].to(DEVICE)
    tile = tiles.Tile(16, 128) if DEVICE.type == "cpu" else None
    _, pull = op.gaussian_potential(w[:16], w, t=2.0, self_index=index, precision=precision, tile=tile, parts=1)
    error = tangent_error(w[:16].cpu(), pull.cpu(), exact_pull(w.cpu(), index.cpu(), 2.0))
    show((50_000, dim), f"t=2.0 {precision} by the kernel: {error:.2e}")
    assert error <= PROMISED[precision]
