"""The k nearest prototypes of a batch, beside a full matrix of cosines and ``topk``."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fastproto import nearest_prototypes
from fastproto.backend import resolve

from .ceilings import in_halves
from .comparison import Call, Case, Comparison, Provider, Row, Setup, Size, Work, compared
from .instances import unit_rows

Inputs = tuple[Tensor, Tensor, int]


def inputs(size: Size, device: torch.device) -> Inputs:
    features = torch.randn(size["B"], size["D"], generator=torch.Generator().manual_seed(1)).to(device)
    return features, unit_rows(size["C"], size["D"], device), size["k"]


def ours(given: Inputs) -> Setup:
    features, prototypes, k = given
    needed = work({"B": len(features), "C": len(prototypes), "D": features.shape[1]})
    if resolve("nearest_prototypes", features, prototypes).backend == "triton":
        needed = in_halves(needed)
    return Setup(lambda _: nearest_prototypes(features, prototypes, k), needed)


def matmul_topk(given: Inputs) -> Call:
    features, prototypes, k = given
    return lambda _: (F.normalize(features, dim=1) @ prototypes.T).topk(k)


def compiled(given: Inputs) -> Call:
    features, prototypes, k = given
    found = torch.compile(lambda x, w: (F.normalize(x, dim=1) @ w.T).topk(k))
    return lambda _: found(features, prototypes)


def work(size: Size) -> Work:
    b, c, d = (size[letter] for letter in "BCD")
    return Work(flops=2.0 * b * c * d, bytes=4.0 * (b + c) * d)


NEAREST_PROTOTYPES = Comparison(
    op="nearest_prototypes",
    sizes={
        "smoke": [{"C": 2_000, "D": 64, "B": 1_000, "k": 5}],
        "small": [{"C": c, "D": 128, "B": 10_000, "k": 5} for c in (1_000, 100_000)],
        "full": [{"C": c, "D": 128, "B": 10_000, "k": 5} for c in (1_000, 10_000, 100_000, 1_000_000)],
    },
    inputs=inputs,
    providers={
        "fastproto": Provider(ours),
        "matmul and topk": Provider(matmul_topk, warm=True),
        "torch.compile": Provider(compiled, small=1_000, compiles=True),
    },
    work=work,
    graph=True,
    serial_part="the scan for the k best of a block of rows",
)


@compared(NEAREST_PROTOTYPES)
def test_nearest_prototypes(case: Case, row: Row) -> None:
    row(case)
