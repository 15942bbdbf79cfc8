"""The loss and its gradient on the CPU: every power beside Eq. 6.

``pytest benchmarks/bench_ipm_loss.py`` writes results/ipm_loss.json in about two minutes: one thread, the powers in
turn, ratios of each round. The features have random directions, or are ``near``: 0.1 from their prototypes, where
1 - cos takes a second pass over the row for every power but 2.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from common import RESULTS, Record, interleaved, machine, summary
from fastproto import ipm_loss

BATCH = 1024
SIZES = [(1_000, 64), (1_000, 512), (100_000, 512)]  # C, D
POWERS = (2.0, 1.0, 0.5, 0.7)


def step(power: float | None, batch: tuple[Tensor, ...]) -> None:
    features, *others = batch
    ipm_loss(features.detach().requires_grad_(), *others, power=power).backward()


def measure(c: int, d: int, near: bool, seconds: float) -> Record:
    prototypes, assignment = F.normalize(torch.randn(c, d), dim=1), torch.randperm(c)
    labels = torch.randint(0, c, (BATCH,))
    noise = torch.randn(BATCH, d)
    features = prototypes[assignment[labels]] + 0.1 * F.normalize(noise, dim=1) if near else noise
    batch = (features, labels, prototypes, assignment)
    providers: dict[str, Callable[[], object]] = {"eq6": partial(step, None, batch)}
    providers |= {str(power): partial(step, power, batch) for power in POWERS}
    times = interleaved(providers, seconds, dict.fromkeys(providers, 20))
    over = {
        name: statistics.median(a / b for a, b in zip(each, times["eq6"], strict=True)) for name, each in times.items()
    }
    return {
        "B": BATCH,
        "C": c,
        "D": d,
        "near": near,
        "powers": {name: summary(each) | {"over_eq6": over[name]} for name, each in times.items()},
    }


def test_ipm_loss() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    cells = [measure(c, d, near, 20.0) for c, d in SIZES for near in (False, True)]
    RESULTS.mkdir(exist_ok=True)
    result: Record = {"machine": machine(), "cells": cells}
    (RESULTS / "ipm_loss.json").write_text(json.dumps(result, indent=2) + "\n")
