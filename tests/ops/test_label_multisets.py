"""Class means of a thousand random multisets of labels: as exact as the float32 loop, the same bits every time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastproto import functional as F
from fastproto import reference
from fastproto.backend import use_backend

DIM, CLASSES = 5, 12
MOMENTA = (0.0, 0.5, 0.9, 0.99)


def multiset(seed: int, longest: int) -> tuple[Tensor, Tensor, Tensor, float]:
    """Means, features, labels and momentum; from evenly spread labels to nearly all of one class."""
    generator = torch.Generator().manual_seed(seed)
    size = int(torch.randint(1, longest + 1, (), generator=generator))
    tail = (1, 3, 12)[seed % 3]
    labels = (CLASSES * torch.rand(size, generator=generator) ** tail).long()
    means, x = (torch.randn(n, DIM, generator=generator) for n in (CLASSES, size))
    return means, x, labels, MOMENTA[seed % 4]


def check(count: int, repeated: int, longest: int, device: torch.device) -> None:
    """``count`` multisets, five runs of the first ``repeated``."""
    worst = {"ours": 0.0, "loop": 0.0}
    for seed in range(count):
        means, x, labels, momentum = multiset(seed, longest)
        given = means.to(device), x.to(device), labels.to(device), momentum
        ours = F.update_class_means(*given)
        loop = reference.update_class_means(means, x, labels, momentum)
        truth = reference.update_class_means(means.double(), x.double(), labels, momentum)
        errors = {"ours": (ours.cpu() - truth).abs().max(), "loop": (loop - truth).abs().max()}
        # the crumb: half a unit in the last place of numbers between 2 and 4, the largest here
        assert errors["ours"] <= 2 * errors["loop"] + 2**-23, f"multiset {seed}: {errors}"
        worst = {name: max(worst[name], float(error)) for name, error in errors.items()}
        if seed < repeated:
            assert all(torch.equal(ours, F.update_class_means(*given)) for _ in range(4)), f"multiset {seed}"
    assert 0 < worst["ours"] <= 2 * worst["loop"], worst


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_a_thousand_multisets(backend: str) -> None:
    with use_backend(backend):
        check(1000, 1000, 40, torch.device("cpu"))


def test_multisets_on_the_kernels() -> None:
    """The interpreter takes a thousand times as long as a GPU and sees fewer of them."""
    from ..kernel_device import DEVICE  # it skips where the kernels cannot run

    with use_backend("triton"):
        if DEVICE.type == "cuda":
            check(1000, 1000, 40, DEVICE)
        else:
            check(40, 4, 40, DEVICE)
