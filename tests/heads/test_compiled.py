"""A compiled step of the head equals the eager one."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from fastproto import PrototypeHead

from ..helpers import unit_rows


def make(c: int = 12, d: int = 4, **options: Any) -> PrototypeHead:
    return PrototypeHead(c, d, **({"prototypes": unit_rows(c, d)} | options))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_training_equals_eager() -> None:
    w = unit_rows(12, 4)
    data = [(torch.randn(8, 6), torch.randint(0, 12, (8,))) for _ in range(3)]
    outcomes = []
    for compiled in (False, True):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(6, 4))
        head = PrototypeHead(12, 4, prototypes=w)

        def step(x: torch.Tensor, y: torch.Tensor, model: nn.Module = model, head: nn.Module = head) -> torch.Tensor:
            loss: torch.Tensor = head(model(x), y)
            return loss

        run = torch.compile(step, fullgraph=True, backend="aot_eager") if compiled else step
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        losses = []
        for x, y in data:
            loss = run(x, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        outcomes.append([*losses, head.class_means.clone(), head.updates.clone(), model[0].weight.detach()])
    for eager, compiled_value in zip(*outcomes, strict=True):
        torch.testing.assert_close(compiled_value, eager)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler's own imports
def test_compiled_equals_eager() -> None:
    torch.manual_seed(0)
    eager = nn.ModuleDict({"backbone": nn.Linear(6, 4), "head": make()})
    compiled = copy.deepcopy(eager)

    def step(modules: nn.ModuleDict, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = modules["head"](modules["backbone"](x), y)
        return loss

    run = torch.compile(partial(step, compiled), fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(3):
            x, y = torch.randn(8, 6), torch.randint(0, 12, (8,))
            losses = []
            for modules, call in ((eager, partial(step, eager)), (compiled, run)):
                modules.zero_grad()
                losses.append(call(x, y))
                losses[-1].backward()
            assert torch.equal(*losses)
            for ours, theirs in zip(eager.parameters(), compiled.parameters(), strict=True):
                torch.testing.assert_close(ours.grad, theirs.grad)
    for name, buffer in eager.named_buffers():
        assert torch.equal(buffer, compiled.get_buffer(name)), name
    assert int(eager["head"].updates) == 3
