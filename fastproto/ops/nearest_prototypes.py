"""The nearest prototypes of each sample, streamed: no B×C matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from fastproto.backend import kernel, resolve
from fastproto.support.checks import check_k, check_matrix, check_unit_rows, shape_of
from fastproto.support.error_flags import NOT_FINITE, flag_of
from fastproto.support.registration import register
from fastproto.support.row_norms import compute_dtype, normalise
from fastproto.support.tracing import recording, tracing

BLOCK = 2048  # rows of one block of a B×C matrix that is never stored whole: 2048² float32 are 16 MiB
KERNEL_MAX_K = 32  # the longest list of the top_scores kernel
SELECT_MAX = 16  # above this k a stable sort beats k passes of max
NUMBA_MAX_K = 64  # above it insertion into a sorted list costs more than a sort


def _top(cosines: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row, the lowest index first among equals (torch.topk does not promise an order)."""
    if k > SELECT_MAX:
        values, indices = cosines.sort(dim=1, descending=True, stable=True)
        return values[:, :k], indices[:, :k]
    found = []
    for _ in range(k):
        value, index = cosines.max(dim=1, keepdim=True)
        found.append((value, index))
        cosines.scatter_(1, index, -torch.inf)
    return torch.cat([v for v, _ in found], 1), torch.cat([i for _, i in found], 1)


def nearest_prototypes(features: Tensor, prototypes: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
    """The k prototypes of largest cosine for each sample, without a B×C matrix.

    ``(F.normalize(features) @ prototypes.T).topk(k)``; the lowest index first among equals.

    CUDA tensors of the kernels' dtypes run on Triton for k <= 32 (products of float16 halves, cosines within 1e-6),
    without a synchronisation. Values are then not checked: a row with NaN has cosines NaN, and
    :func:`fastproto.functional.check_batches` reports it later.

    Args:
        features: [B, D], any float dtype.
        prototypes: unit rows [C, D].
        k: how many, 1..C.

    Returns:
        cosines [B, k] float32 (float64 for float64 features), descending, and rows of ``prototypes`` [B, k] int64.

    Raises:
        TypeError, ValueError: shapes, dtypes, k outside 1..C, NaN or inf in the features, prototypes that are not unit.
    """
    return nearest(features, prototypes, k, None)


@torch.no_grad()
def nearest(features: Tensor, prototypes: Tensor, k: int, flag: Tensor | None) -> tuple[Tensor, Tensor]:
    """:func:`nearest_prototypes`; ``flag`` as in the loss (None: the device's own)."""
    if not tracing():  # a traced graph would record the shapes, which then cannot be compared
        k = _check(features, prototypes, k)
    if recording():
        return _in_a_graph(features, prototypes, k)
    if torch.compiler.is_compiling():
        found: tuple[Tensor, Tensor] = _operator(features, prototypes, k, flag)
        return found
    return _nearest(features, prototypes, k, flag)


def _check(features: Tensor, prototypes: Tensor, k: int) -> int:
    check_matrix("features", features, min_rows=0)
    check_matrix("prototypes", prototypes)
    if prototypes.shape[1] != features.shape[1]:
        raise ValueError(
            f"features are {shape_of(features)} and prototypes {shape_of(prototypes)}; expected the same D"
        )
    return check_k(k, len(prototypes))


def _nearest(features: Tensor, prototypes: Tensor, k: int, flag: Tensor | None) -> tuple[Tensor, Tensor]:
    with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
        # the kernel keeps the candidates of a row in registers; torch sorts longer lists
        if k <= KERNEL_MAX_K and resolve("nearest_prototypes", features, prototypes).backend == "triton":
            z, inverse = normalise(features, skip=True)
            spoiled = inverse.isnan()
            flag = flag_of(features.device) if flag is None else flag
            if flag is not None:
                flag |= NOT_FINITE * spoiled.any()
            cosines, indices = kernel("top_scores")(z, prototypes, k)
            return cosines.masked_fill_(spoiled, torch.nan), indices
        check_unit_rows("prototypes", prototypes)
        z = normalise(features)[0]
        if k <= NUMBA_MAX_K and resolve("nearest_prototypes", z, prototypes).backend == "numba":
            from fastproto.cpu.nearest_prototypes import nearest_prototypes as in_numba

            return in_numba(z, prototypes.float(), k)
        return streaming_top(z, prototypes, k)


def _nearest_shapes(features: Tensor, prototypes: Tensor, k: int, flag: Tensor | None) -> tuple[Tensor, Tensor]:
    rows = features.shape[0]
    return features.new_empty(rows, k, dtype=compute_dtype(features)), features.new_empty(rows, k, dtype=torch.int64)


_operator = register("nearest_prototypes", _nearest, _nearest_shapes, mutates=["flag"])


def _in_a_graph(features: Tensor, prototypes: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """:func:`_nearest` in torch's own operators, for exported and traced graphs, at any batch size."""
    with torch.autocast(features.device.type, enabled=False):
        z, inverse = normalise(features, skip=True)
        cosines, indices = _top(z @ prototypes.to(z.dtype).T, k)
        return torch.where(inverse.isnan(), torch.nan, cosines), indices


def streaming_top(z: Tensor, w: Tensor, k: int, block: int = BLOCK) -> tuple[Tensor, Tensor]:
    """Top k of z @ w.T, a square block at a time, the lowest index first among equals."""
    w = w.to(z.dtype)
    cosines, indices = z.new_empty(len(z), k), torch.empty(len(z), k, dtype=torch.int64, device=z.device)
    for start in range(0, len(z), block):
        rows = slice(start, start + block)
        best = z.new_empty(len(z[rows]), 0)
        at = torch.empty_like(best, dtype=torch.int64)
        for column in range(0, len(w), block):
            cosine = z[rows] @ w[column : column + block].T
            value, index = _top(cosine, min(k, cosine.shape[1]))
            best, at = torch.cat([best, value], 1), torch.cat([at, index + column], 1)
            best, order = _top(best, min(k, best.shape[1]))
            at = at.gather(1, order)
        cosines[rows], indices[rows] = best, at
    return cosines, indices
