"""The step on the sphere against float64, on a GPU or under Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ..kernel_device import DEVICE  # first: it skips the file where the kernels cannot run

# isort: split
from fastproto_kernels.sphere_step import sphere_step_

from ..helpers import assert_as_accurate_as, unit_rows

OPTIONS = {"factor": 8.0 * 50, "rate": 0.3, "momentum": 0.9}


def step(w: Tensor, v: Tensor, pull: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    gradient = OPTIONS["factor"] / total * (pull - (pull * w).sum(1, keepdim=True) * w)
    v = OPTIONS["momentum"] * v + gradient
    w = w - OPTIONS["rate"] * v
    w = w / w.norm(dim=1, keepdim=True)
    return w, v - (v * w).sum(1, keepdim=True) * w


@pytest.mark.parametrize(("m", "dim"), [(64, 64), (31, 17), (1, 2), (50, 100), (3, 700)])
def test_against_float64(m: int, dim: int) -> None:
    w, v = unit_rows(m, dim).to(DEVICE), 0.1 * torch.randn(m, dim, device=DEVICE)
    pull, total = torch.randn(m, dim, device=DEVICE), torch.tensor([123.0], device=DEVICE)
    truth = step(w.double(), v.double(), pull.double(), total.double())
    torchs = step(w, v, pull, total)
    again_w, again_v = w.clone(), v.clone()
    sphere_step_(w, v, pull, total, **OPTIONS)
    sphere_step_(again_w, again_v, pull, total, **OPTIONS)
    assert torch.equal(w, again_w) and torch.equal(v, again_v)
    assert_as_accurate_as(w, torchs[0], truth[0])
    assert_as_accurate_as(v, torchs[1], truth[1])
    torch.testing.assert_close(w.norm(dim=1), torch.ones(m, device=DEVICE))
    assert float((w * v).sum(1).abs().max()) < 1e-4 * float(v.norm(dim=1).max())
