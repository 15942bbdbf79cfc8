"""A hundred thousand steps and a thousand renewals: memory stays where it was, and the means stay near float64's."""

from __future__ import annotations

import gc
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from fastproto import PrototypeHead, reference

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc for its memory")]

STEPS, EVERY = 100_000, 100  # a renewal every hundred steps
CLASSES, DIM, BATCH, MOMENTUM = 150, 8, 8, 0.9  # so many classes that column generation solves them
# A float32 mean is rounded at each update and forgets all but α of its error: at most eps/2 · (1 + α + α² + ...) for
# the mean itself and as much again for each of the products, the sum, the norm and the row that is added.
DRIFT = 4 * torch.finfo(torch.float32).eps / (1 - MOMENTUM)
GROWTH, TRACED = 24 << 20, 256 << 10  # bytes: the allocator's own moods, and what Python's caches may take


def resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def batch(generator: torch.Generator, centres: Tensor) -> tuple[Tensor, Tensor]:
    labels = torch.randint(0, CLASSES, (BATCH,), generator=generator)
    return centres[labels] + 0.3 * torch.randn(BATCH, DIM, generator=generator), labels


def renew(head: PrototypeHead, number: int) -> None:
    """In place and in the background by turns; every hundredth is compared with SciPy."""
    found = head.reassign() if number % 2 else head.finish_renewal(head.begin_renewal())
    assert found is not None and found.certified and torch.equal(head.assignment, found.permutation)
    if number % 100 == 0:
        scores = reference.scores(head.class_means.double(), head.prototypes.double())
        best = reference.objective(scores, reference.best_assignment(scores))
        assert float(best - reference.objective(scores, head.assignment)) <= 1e-6 * CLASSES * float(scores.std())


def test_a_hundred_thousand_steps_and_a_thousand_renewals() -> None:
    generator = torch.Generator().manual_seed(0)
    head = PrototypeHead(CLASSES, DIM, prototypes=normalize(torch.randn(CLASSES, DIM, generator=generator), dim=1))
    head.momentum = MOMENTUM
    centres = torch.randn(CLASSES, DIM, generator=generator)
    exact = torch.zeros(CLASSES, DIM, dtype=torch.float64)
    began, worst, renewals = time.monotonic(), 0.0, 0
    memory = traced = 0
    for step in range(1, STEPS + 1):
        x, y = batch(generator, centres)
        head(x.requires_grad_(), y).backward()
        exact = reference.update_class_means(exact, x.detach().double(), y, MOMENTUM)
        if step % EVERY == 0:
            renew(head, renewals := renewals + 1)
            worst = max(worst, float((head.class_means.double() - exact).abs().max()))
            assert worst <= DRIFT, f"the means are {worst:.2e} from float64's after {step} steps"
        if step == STEPS // 10:  # what is allocated once is there
            memory = resident()
            tracemalloc.start()
        elif step == STEPS // 5:
            traced = tracemalloc.get_traced_memory()[0]
    grown, held = resident() - memory, tracemalloc.get_traced_memory()[0] - traced
    tracemalloc.stop()
    print(
        f"\n{STEPS} steps, {renewals} renewals: {grown / 2**20:+.1f} MiB resident, {held / 2**10:+.1f} KiB of Python's "
        f"objects, drift {worst:.1e} (at most {DRIFT:.1e}), {time.monotonic() - began:.0f} s",
        flush=True,
    )
    assert int(head.updates) == STEPS and renewals == STEPS // EVERY
    assert grown <= GROWTH and held <= TRACED
