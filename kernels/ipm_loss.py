"""Input-to-prototype mapping loss (Eq. 6) and its gradient in one pass over the features.

    w = W[A[y]],  cos = z·w,  z = x/‖x‖,  loss = ½ (cos - 1)²,  dloss/dx = (cos - 1) (w - cos z) / ‖x‖

``official``, the (1 - cos)² of the authors' published code, is twice both. Bytes: x, w and dx once each (of w, only the
rows that the batch names leave the memory), beside 8 for a label, 8 for a row number and 4 for a loss. A program keeps
its rows and their prototypes in registers from the sums to the gradient; rows of more than 4096 columns are read twice,
the second time from the cache. Source: Saadabadi et al., CVPR 2024.
"""
# jit functions have no Python types
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .lib.row_blocks import count_skipped, inverse_norm, load_rows, raise_flag, row_block, store_rows


@triton.jit
def prototype_of(labels, known, assignment_ptr, C):
    """Row A[y] of W (int64, zero where there is none) and whether it is one of 0..C-1."""
    row = tl.load(assignment_ptr + labels, mask=known, other=0)
    assigned = (row >= 0) & (row < C)
    return tl.where(assigned, row, 0), assigned


@triton.jit
def loss_and_slope(products, inverse, good, factor):
    """The loss, cos, and the factor of (w - cos z) in the gradient, from x·w; zeros where not good."""
    cosine = tl.where(good, products, 0.0) * inverse
    residual = tl.where(good, cosine - 1.0, 0.0)
    return 0.5 * factor * residual * residual, cosine, factor * residual * inverse


@triton.jit(do_not_specialize=["B"])  # the last batch of an epoch is another size: no new compilation for it
def _ipm_loss_kernel(
    features_ptr,
    labels_ptr,
    prototypes_ptr,
    assignment_ptr,
    loss_ptr,
    gradient_ptr,
    unit_ptr,
    flag_ptr,
    skipped_ptr,
    B,
    C,
    D,
    stride_row,
    stride_column,
    stride_prototype,
    factor,
    ROUNDS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    o_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    m_m = o_m < B
    labels = tl.load(labels_ptr + o_m, mask=m_m, other=-1)
    known = (labels >= 0) & (labels < C)
    rows, assigned = prototype_of(labels, known, assignment_ptr, C)
    x = load_rows(features_ptr, o_m, stride_row, stride_column, 0, D, m_m, BLOCK_D)  # without waiting for the label
    w = load_rows(prototypes_ptr, rows, stride_prototype, 1, 0, D, known, BLOCK_D)
    squares, products = tl.sum(x * x, 1), tl.sum(x * w, 1)
    for k in tl.static_range(1, ROUNDS):  # rows of more than 4096 columns
        x_k = load_rows(features_ptr, o_m, stride_row, stride_column, k * BLOCK_D, D, m_m, BLOCK_D)
        w_k = load_rows(prototypes_ptr, rows, stride_prototype, 1, k * BLOCK_D, D, known, BLOCK_D)
        squares += tl.sum(x_k * x_k, 1)
        products += tl.sum(x_k * w_k, 1)
    inverse, finite = inverse_norm(squares)
    good = known & assigned & finite
    loss, cosine, slope = loss_and_slope(products, inverse, good, factor)
    tl.store(loss_ptr + o_m, loss, mask=m_m)
    for k in tl.static_range(0, ROUNDS):
        if k > 0:
            x = load_rows(features_ptr, o_m, stride_row, stride_column, k * BLOCK_D, D, m_m, BLOCK_D)
            w = load_rows(prototypes_ptr, rows, stride_prototype, 1, k * BLOCK_D, D, known, BLOCK_D)
        z = tl.where(good[:, None], x, 0.0) * inverse[:, None]
        store_rows(gradient_ptr, o_m, k * BLOCK_D, D, slope[:, None] * (w - cosine[:, None] * z), m_m, BLOCK_D)
        if unit_ptr is not None:
            store_rows(unit_ptr, o_m, k * BLOCK_D, D, z, m_m, BLOCK_D)
    if flag_ptr is not None:
        raise_flag(flag_ptr, m_m, known, assigned, finite)
    if skipped_ptr is not None:
        count_skipped(skipped_ptr, m_m, finite)


LOSS_FACTOR = {"eq6": 1.0, "official": 2.0}


def ipm_loss(
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    assignment: Tensor,
    *,
    loss: str = "eq6",
    unit_dtype: torch.dtype | None = None,
    flag: Tensor | None = None,
    skipped: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Loss per sample [B] float32, its gradient [B, D] in the features' dtype, and z [B, D] in ``unit_dtype`` or None.

    features [B, D] float32, bfloat16 or float16 with any strides; labels [B] and assignment [C] int64; prototypes
    [C, D], unit rows. A zero row has z = 0, loss ½ and zero gradient. A row with a label outside 0..C-1, a prototype
    number outside 0..C-1, NaN or inf is left out: zero loss, gradient and z; ``flag`` (int32 [1]) gets the bits of
    ``rows.BAD_LABEL``, ``BAD_ASSIGNMENT`` and ``NOT_FINITE``, and keeps those it had;
    ``skipped`` (int64, one number) grows by the rows with NaN or inf.
    """
    b, dim = features.shape
    prototypes = prototypes if prototypes.stride(1) == 1 else prototypes.contiguous()
    losses = torch.empty(b, dtype=torch.float32, device=features.device)
    gradient = torch.empty((b, dim), dtype=features.dtype, device=features.device)
    unit = None if unit_dtype is None else torch.empty((b, dim), dtype=unit_dtype, device=features.device)
    block = row_block(dim, per_thread=16)
    if b:
        with torch.cuda.device_of(features):
            _ipm_loss_kernel[(-(-b // block.rows),)](
                features_ptr=features,
                labels_ptr=labels.contiguous(),
                prototypes_ptr=prototypes,
                assignment_ptr=assignment.contiguous(),
                loss_ptr=losses,
                gradient_ptr=gradient,
                unit_ptr=unit,
                flag_ptr=flag,
                skipped_ptr=skipped,
                B=b,
                C=prototypes.shape[0],
                D=dim,
                stride_row=features.stride(0),
                stride_column=features.stride(1),
                stride_prototype=prototypes.stride(0),
                factor=LOSS_FACTOR[loss],
                ROUNDS=block.rounds,
                BLOCK_M=block.rows,
                BLOCK_D=block.width,
                num_warps=block.num_warps,
            )
    return losses, gradient, unit
