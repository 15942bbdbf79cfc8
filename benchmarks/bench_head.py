"""The head's training step and its prediction against the authors' formula, softmax, and matmul + topk.

``pytest benchmarks/bench_head.py`` writes results/head.json in about four minutes: one thread unless two are named,
the providers in turn, ratios within one run. Softmax at 100,000 classes needs 2 GiB.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from common import RESULTS, Record, exponent, extra_peak, interleaved, machine, summary
from fastproto import PrototypeHead, nearest_prototypes

BATCH, DIM = 1024, 512
CLASSES = [1_000, 10_000, 100_000]
SERIES = [1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000]


class Authors:
    """The authors' step in plain torch: gather, CosineSimilarity, normalisation of the whole queue."""

    def __init__(self, prototypes: Tensor, assignment: Tensor) -> None:
        self.prototypes, self.assignment = prototypes, assignment
        self.cosine = torch.nn.CosineSimilarity(dim=1)
        self.queue = F.normalize(torch.randn_like(prototypes), dim=1)

    def step(self, features: Tensor, labels: Tensor) -> Tensor | None:
        leaf = features.detach().requires_grad_()
        loss = ((1 - self.cosine(leaf, self.prototypes[self.assignment[labels]])) ** 2).sum()
        loss.backward()
        with torch.no_grad():
            z = F.normalize(features, dim=1)
            self.queue.index_add_(0, labels, 0.9 * self.queue[labels] + 0.1 * z)
            self.queue = F.normalize(self.queue, dim=1)
        return leaf.grad


def softmax_step(weight: Tensor, features: Tensor, labels: Tensor) -> Tensor | None:
    leaf, weight.grad = features.detach().requires_grad_(), None
    F.cross_entropy(leaf @ weight.T, labels).backward()
    return leaf.grad


def our_step(head: PrototypeHead, features: Tensor, labels: Tensor) -> Tensor | None:
    leaf = features.detach().requires_grad_()
    head(leaf, labels).backward()
    return leaf.grad


def unit_rows(c: int, d: int) -> Tensor:
    return F.normalize(torch.randn(c, d, generator=torch.Generator().manual_seed(0)), dim=1)


def batches(c: int) -> Callable[[], tuple[Tensor, Tensor]]:
    """New labels at every call, so that the rows of prototypes and class means are not in the cache."""
    features, generator = torch.randn(BATCH, DIM), torch.Generator().manual_seed(1)
    return lambda: (features, torch.randint(0, c, (BATCH,), generator=generator))


def measure(c: int, seconds: float) -> Record:
    prototypes, batch = unit_rows(c, DIM), batches(c)
    head = PrototypeHead(c, DIM, prototypes=prototypes)
    authors = Authors(prototypes, head.assignment)
    providers: dict[str, Callable[[], object]] = {
        "ours": lambda: our_step(head, *batch()),
        "authors": lambda: authors.step(*batch()),
    }
    weight = prototypes.clone().requires_grad_()
    softmax: dict[str, Callable[[], object]] = {"softmax": lambda: softmax_step(weight, *batch())}
    if c < 100_000:
        times = interleaved(providers | softmax, seconds, {"ours": 20})
    else:  # a softmax step takes seconds: timed separately, or the others would get few rounds
        times = interleaved(providers, seconds, {"ours": 20}) | interleaved(softmax, 0.0)
    ours = statistics.median(times["ours"])
    cell: Record = {"B": BATCH, "C": c, "D": DIM, "providers": {}}
    for name, each in times.items():
        cell["providers"][name] = summary(each) | {"over_ours": statistics.median(each) / ours}
    return cell


def series() -> list[Record]:
    """The time of our step against C, the sizes in turn."""
    heads = {c: PrototypeHead(c, DIM, prototypes=unit_rows(c, DIM)) for c in SERIES}
    providers: dict[str, Callable[[], object]] = {
        str(c): partial(lambda head, batch: our_step(head, *batch()), heads[c], batches(c)) for c in SERIES
    }
    times = interleaved(providers, 20.0, dict.fromkeys(providers, 20))
    return [{"C": c} | summary(times[str(c)]) for c in SERIES]


def gather(sizes: list[int]) -> dict[str, float]:
    """Seconds to gather the prototypes of a batch: the cost of memory access alone at many classes."""
    out, generator = torch.empty(BATCH, DIM), torch.Generator().manual_seed(1)

    def read(prototypes: Tensor) -> None:
        torch.index_select(prototypes, 0, torch.randint(0, len(prototypes), (BATCH,), generator=generator), out=out)

    times = interleaved({str(c): partial(read, unit_rows(c, DIM)) for c in sizes}, 2.0)
    return {c: statistics.median(each) for c, each in times.items()}


def prediction(c: int, b: int, d: int, k: int) -> Record:
    """Top-k of b features against c prototypes, and the same from a full logit matrix; in one and in two threads."""
    prototypes, features = unit_rows(c, d), torch.randn(b, d)
    providers: dict[str, Callable[[], object]] = {
        "ours": lambda: nearest_prototypes(features, prototypes, k),
        "matmul_topk": lambda: (F.normalize(features, dim=1) @ prototypes.T).topk(k),
    }
    times = interleaved(providers, 10.0)
    torch.set_num_threads(2)
    in_two_threads = interleaved(providers, 10.0)
    torch.set_num_threads(1)
    setup = (
        "from fastproto import nearest_prototypes; F = torch.nn.functional\n"
        f"w, x = F.normalize(torch.randn({c}, {d}), dim=1), torch.randn({b}, {d})"
    )
    extra = {
        "ours": extra_peak(setup, f"nearest_prototypes(x[:9], w[:99], {k})", f"nearest_prototypes(x, w, {k})"),
        "matmul_topk": extra_peak(setup, "0", f"(F.normalize(x, dim=1) @ w.T).topk({k})"),
    }
    return {
        "B": b,
        "C": c,
        "D": d,
        "k": k,
        "providers": {name: summary(each) | {"extra_peak_mib": extra[name]} for name, each in times.items()},
        "speedup": speedup(times),
        "speedup_two_threads": speedup(in_two_threads),
        "share_of_memory": extra["ours"] / extra["matmul_topk"],
    }


def speedup(times: dict[str, list[float]]) -> float:
    return statistics.median(a / o for a, o in zip(times["matmul_topk"], times["ours"], strict=True))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_head() -> None:
    torch.set_num_threads(1)
    result: Record = {"machine": machine(), "cells": [measure(c, 10.0) for c in CLASSES]}
    result["series"] = series()
    result["exponent"] = exponent(SERIES, [p["median_s"] for p in result["series"]])
    by_size = {p["C"]: p["median_s"] for p in result["series"]}
    result["step_100k_over_1k"] = by_size[100_000] / by_size[1_000]
    result["gather_s"] = gather([1_000, 100_000])
    result["prediction"] = prediction(100_000, 10_000, 128, 5)
    result["not_measured"] = ["a GPU"]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "head.json").write_text(json.dumps(result, indent=2) + "\n")
    assert result["prediction"]["share_of_memory"] < 0.5
