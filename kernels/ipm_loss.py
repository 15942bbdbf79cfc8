"""Input-to-prototype mapping loss and its gradient in one pass over the features.

    w = W[A[y]],  cos = z·w,  z = x/‖x‖,  loss = (1 - cos)^p / p,  dloss/dx = -(1 - cos)^(p-1) (w - cos z) / ‖x‖

p = 2 is Eq. 6. For any other p, 1 - cos is ½‖z - w‖², summed from the rows in registers: its relative error at the
angle θ is about 1e-7/θ, not the 1e-7/θ² of a difference. Within an angle of 5e-7, the rounding of z, a sample is at its
target: loss and gradient are zero. Powers other than 2, 1 and ½ take exp2 and log2, with a relative error of
3e-7 |p-1| |log2(1 - cos)|.

Memory traffic: x, its gradient and the prototypes of the labels once, and 20 bytes per sample for its label, prototype
index and loss. A program keeps its rows and their prototypes in registers from the sums to the gradient. Rows of more
than 4096 columns are read again from the cache, once, or twice for p ≠ 2. Source: Saadabadi et al., CVPR 2024.
"""
# jit functions have no Python types
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from .lib.error_flags import count_skipped, raise_flag
from .lib.row_blocks import inverse_norm, load_rows, store_rows
from .lib.tile_sizes import row_block
from .lib.variants import ROWS, Variant, row_kernel_dims

EQ6 = 2.0
COMPILED_POWERS = (EQ6, 1.0, 0.5)  # a case of POWER each
ANY_POWER = 0.0  # the case of all other powers
_AT_TARGET = tl.constexpr(1.2e-13)  # ½‖z - w‖² below which the rounding of z decides


@triton.jit
def prototype_of(labels, known, assignment_ptr, C):
    """The prototype index A[y] (int64; 0 if it is not in 0..C-1), and whether it is in that range."""
    row = tl.load(assignment_ptr + labels, mask=known, other=0)
    assigned = (row >= 0) & (row < C)
    return tl.where(assigned, row, 0), assigned


@triton.jit
def loss_and_slope(products, inverse, good):
    """Loss, cos, and the factor of (w - cos z) in the gradient, from x·w and 1/‖x‖; zeros where not ``good``."""
    cosine = tl.where(good, products, 0.0) * inverse
    residual = tl.where(good, cosine - 1.0, 0.0)
    return 0.5 * residual * residual, cosine, residual * inverse


@triton.jit
def power_loss_and_slope(distance, inverse, good, exponent, over_power, POWER: tl.constexpr):
    """The loss, and the factor of (w - cos z) in the gradient, from ‖z - w‖² and 1/‖x‖; zeros where not ``good``."""
    residual = tl.maximum(tl.where(inverse > 0, 0.5 * distance, 1.0), _AT_TARGET)
    off = good & (residual > _AT_TARGET)
    if POWER == 1.0:
        steepness = tl.where(off, 1.0, 0.0)
        loss = steepness * residual
    elif POWER == 0.5:
        steepness = tl.where(off, tl.rsqrt(residual), 0.0)
        loss = 2.0 * steepness * residual
    else:
        steepness = tl.where(off, tl.exp2(exponent * tl.log2(residual)), 0.0)
        loss = steepness * residual * over_power
    return loss, -steepness * inverse


@triton.jit
def squared_distance(z, w):
    """‖z - w‖² of each row."""
    return tl.sum((z - w) * (z - w), 1)


def compiled_power(power: float) -> float:
    """The value of POWER for this power."""
    return power if power in COMPILED_POWERS else ANY_POWER


@triton.jit(do_not_specialize=["B"])  # no new compilation for a smaller last batch
def _ipm_loss_kernel(
    features_ptr, labels_ptr, prototypes_ptr, assignment_ptr, loss_ptr, gradient_ptr, flag_ptr, skipped_ptr,
    B, C, D,
    stride_row, stride_column, stride_prototype,
    exponent, over_power,
    POWER: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    BLOCK_ROWS: tl.constexpr = BLOCK.rows
    BLOCK_WIDTH: tl.constexpr = BLOCK.width
    ROUNDS: tl.constexpr = BLOCK.rounds
    o_m = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    m_m = o_m < B
    labels = tl.load(labels_ptr + o_m, mask=m_m, other=-1)
    known = (labels >= 0) & (labels < C)
    rows, assigned = prototype_of(labels, known, assignment_ptr, C)
    x = load_rows(features_ptr, o_m, stride_row, stride_column, 0, D, m_m, BLOCK_WIDTH)  # needs no label: loads overlap
    w = load_rows(prototypes_ptr, rows, stride_prototype, 1, 0, D, known, BLOCK_WIDTH)
    squares, products = tl.sum(x * x, 1), tl.sum(x * w, 1)
    for k in tl.static_range(1, ROUNDS):  # rows of more than 4096 columns
        x_k = load_rows(features_ptr, o_m, stride_row, stride_column, k * BLOCK_WIDTH, D, m_m, BLOCK_WIDTH)
        w_k = load_rows(prototypes_ptr, rows, stride_prototype, 1, k * BLOCK_WIDTH, D, known, BLOCK_WIDTH)
        squares += tl.sum(x_k * x_k, 1)
        products += tl.sum(x_k * w_k, 1)
    inverse, finite = inverse_norm(squares)
    if flag_ptr is not None:
        raise_flag(flag_ptr, m_m, known, assigned, finite)
    if skipped_ptr is not None:
        count_skipped(skipped_ptr, m_m, finite)
    good = known & assigned & finite
    if POWER == 2.0:
        loss, cosine, slope = loss_and_slope(products, inverse, good)
    else:
        distance = squared_distance(tl.where(good[:, None], x, 0.0) * inverse[:, None], w)
        for k in tl.static_range(1, ROUNDS):
            x_k = load_rows(features_ptr, o_m, stride_row, stride_column, k * BLOCK_WIDTH, D, m_m, BLOCK_WIDTH)
            w_k = load_rows(prototypes_ptr, rows, stride_prototype, 1, k * BLOCK_WIDTH, D, known, BLOCK_WIDTH)
            distance += squared_distance(tl.where(good[:, None], x_k, 0.0) * inverse[:, None], w_k)
        loss, slope = power_loss_and_slope(distance, inverse, good, exponent, over_power, POWER)
        cosine = tl.where(good, products, 0.0) * inverse
    tl.store(loss_ptr + o_m, loss, mask=m_m)
    for k in tl.static_range(0, ROUNDS):
        if k > 0:
            x = load_rows(features_ptr, o_m, stride_row, stride_column, k * BLOCK_WIDTH, D, m_m, BLOCK_WIDTH)
            w = load_rows(prototypes_ptr, rows, stride_prototype, 1, k * BLOCK_WIDTH, D, known, BLOCK_WIDTH)
        z = tl.where(good[:, None], x, 0.0) * inverse[:, None]
        gradient = slope[:, None] * (w - cosine[:, None] * z)
        store_rows(gradient_ptr, o_m, k * BLOCK_WIDTH, D, gradient, m_m, BLOCK_WIDTH)


def ipm_loss(
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    assignment: Tensor,
    *,
    power: float = EQ6,
    flag: Tensor | None = None,
    skipped: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Loss per sample [B] float32 and its gradient [B, D] in the features' dtype.

    features [B, D] float32, bfloat16 or float16 with any strides; labels [B] and assignment [C] int64; prototypes
    [C, D], unit rows; power p > 0. A zero row has loss 1/p and zero gradient. A row with NaN or inf, or with a label or
    a prototype index outside 0..C-1, has zero loss and gradient and sets a bit of ``flag`` (int32 [1]): ``BAD_LABEL``,
    ``BAD_ASSIGNMENT`` or ``NOT_FINITE`` (lib/error_flags). The number of rows with NaN or inf is added to ``skipped``
    (int64 [1]).
    """
    b, dim = features.shape
    prototypes = prototypes if prototypes.stride(1) == 1 else prototypes.contiguous()
    losses = torch.empty(b, dtype=torch.float32, device=features.device)
    gradient = torch.empty((b, dim), dtype=features.dtype, device=features.device)
    if b == 0:
        return losses, gradient
    block = row_block(dim, per_thread=16)
    with torch.cuda.device_of(features):
        _ipm_loss_kernel[(-(-b // block.rows),)](
            features_ptr=features, labels_ptr=labels.contiguous(),
            prototypes_ptr=prototypes, assignment_ptr=assignment.contiguous(),
            loss_ptr=losses, gradient_ptr=gradient, flag_ptr=flag, skipped_ptr=skipped,
            B=b, C=prototypes.shape[0], D=dim,
            stride_row=features.stride(0), stride_column=features.stride(1),
            stride_prototype=prototypes.stride(0),
            exponent=power - 1.0, over_power=1 / power,
            POWER=compiled_power(power), BLOCK=block, num_warps=block.num_warps,
        )  # fmt: skip
    return losses, gradient


POWER_NAMES = {EQ6: "", 1.0: "p=1 ", 0.5: "p=1/2 ", ANY_POWER: "any p "}


def variants(family: int, dims: tuple[int, ...]) -> Iterator[Variant]:
    for dim, x, (power, named) in itertools.product(row_kernel_dims(dims), ("fp32", "bf16"), POWER_NAMES.items()):
        block = row_block(dim, per_thread=16)
        yield Variant(
            kernel="ipm_loss",
            name=named + x,
            dim=dim,
            function=_ipm_loss_kernel,
            types={"features_ptr": x, "gradient_ptr": x, "flag_ptr": "i32", "exponent": "fp32", "over_power": "fp32"}
            | dict.fromkeys(("labels_ptr", "assignment_ptr", "skipped_ptr"), "i64"),
            constants={"stride_column": 1, "POWER": power, "BLOCK": block},
            num_warps=block.num_warps,
            bytes=ROWS * dim * (4 + 2 * (4 if x == "fp32" else 2)),
        )
