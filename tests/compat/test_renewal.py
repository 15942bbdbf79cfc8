"""Renewal of the heads inside of any model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from fastproto import PrototypeHead
from fastproto.compat import renew_assignments
from fastproto.compat.transformers import PrototypeClassifier


@pytest.fixture
def group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("group")
def test_the_heads_of_a_model_that_ddp_wraps() -> None:
    own = PrototypeHead(6, 4)
    before = own.assignment.clone()
    model = DistributedDataParallel(PrototypeClassifier(nn.Linear(3, 4), own))
    model(labels=torch.arange(6), input=torch.randn(6, 3))["loss"].backward()
    found = renew_assignments(model)
    assert set(found) == {"module.head"}
    assert torch.equal(found["module.head"].permutation, own.assignment) and not torch.equal(own.assignment, before)
