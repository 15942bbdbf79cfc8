"""What a head saves, loads and refuses to load."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fastproto import PrototypeHead, reference

from ..every_head import head
from ..helpers import unit_rows


def make(c: int = 12, d: int = 4, **options: Any) -> PrototypeHead:
    return PrototypeHead(c, d, **({"prototypes": unit_rows(c, d)} | options))


def test_state_survives_dtype_changes() -> None:
    for change in (lambda m: m.half(), lambda m: m.bfloat16(), lambda m: m.double(), lambda m: m.to(torch.bfloat16)):
        model = change(nn.Sequential(nn.Linear(4, 4), make()))
        dtypes = [value.dtype for value in model[1].state_dict().values()]
        assert dtypes == [torch.float32, torch.int64, torch.float32, torch.float32, torch.int64]
        assert not any(buffer.dtype.is_floating_point for buffer in (model[1].skipped, model[1].flag))
        assert model[0].weight.dtype != torch.float32


def test_state_dict_round_trip() -> None:
    head = make()
    head(torch.randn(30, 4), torch.randint(0, 12, (30,)))
    head.reassign()
    other = make(seed=5)
    other.load_state_dict(head.state_dict())
    for a, b in zip(head.buffers(), other.buffers(), strict=True):
        assert torch.equal(a, b)
    assert set(head.state_dict()) == {"prototypes", "assignment", "class_means", "prices", "updates"}


def test_a_broken_state_dict_is_refused() -> None:
    state = make().state_dict()
    state["assignment"] = torch.zeros(12, dtype=torch.int64)
    head = make()
    before = {name: value.clone() for name, value in head.state_dict().items()}
    with pytest.raises(RuntimeError, match="more than once"):
        head.load_state_dict(state)
    for name, value in (("prototypes", 5 * unit_rows(12, 4)), ("class_means", torch.full((12, 4), float("nan")))):
        with pytest.raises(RuntimeError, match=name):
            head.load_state_dict(before | {name: value})
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())
    with pytest.raises(RuntimeError, match="size mismatch"):
        make(11).load_state_dict(state)


def test_half_precision_states_are_read_as_float32() -> None:
    state = {k: v.half() if v.is_floating_point() else v for k, v in make().state_dict().items()}
    for assign in (False, True):
        head = make()
        head.load_state_dict(state, assign=assign)
        assert head.prototypes.dtype == head.class_means.dtype == head.prices.dtype == torch.float32


def test_a_state_that_holds_one_tensor_twice() -> None:
    w = unit_rows(10, 4)
    state = head().state_dict() | {"prototypes": w, "class_means": w}
    for given in (state, state | {"class_means": torch.zeros(1, 4).expand(10, 4)}):
        made = head()
        made.load_state_dict(given, assign=True)
        before = made.class_means.clone()
        x, y = torch.randn(5, 4), torch.tensor([0, 1, 1, 2, 9])
        made(x, y)
        assert torch.equal(made.prototypes, w)
        torch.testing.assert_close(made.class_means, reference.update_class_means(before, x, y, 0.9))


def model(c: int = 20, d: int = 5) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, d), PrototypeHead(c, d, prototypes=unit_rows(c, d)))


def test_empty_memory_is_no_state() -> None:
    head = model()[1].to_empty(device="cpu")
    head.assignment.fill_(-7)
    with pytest.raises(ValueError, match="assignment"):
        head.predict(torch.randn(3, 5))
    state = model()[1].state_dict()
    head.load_state_dict(state)
    assert head.predict(torch.randn(3, 5)).max() < 20


def test_a_state_of_parameters_is_assigned_as_buffers() -> None:
    source, into = PrototypeHead(20, 5, prototypes=unit_rows(20, 5)), PrototypeHead(20, 5, prototypes=unit_rows(20, 5))
    state = {
        name: nn.Parameter(value, requires_grad=value.is_floating_point())
        for name, value in source.state_dict().items()
    }
    into.load_state_dict(state, assign=True)
    assert not list(into.parameters()) and not into.prototypes.requires_grad
    assert torch.equal(into.assignment, source.assignment)
    with pytest.raises(RuntimeError, match="prototypes"):
        into.load_state_dict(source.state_dict() | {"prototypes": source.prototypes.numpy()})
    assert torch.equal(into.predict(torch.ones(3, 5)), source.predict(torch.ones(3, 5)))


@pytest.mark.parametrize("write", ["counted", "data", "exchanged", "float", "outside"])
def test_a_damaged_assignment_is_never_predicted_with(write: str) -> None:
    head, x = PrototypeHead(20, 5, prototypes=unit_rows(20, 5)), torch.randn(30, 5)
    if write == "counted":
        head.assignment[3] = head.assignment[4]
    elif write == "data":
        head.assignment.data.floor_divide_(2)
    elif write == "exchanged":
        head.assignment = torch.zeros(20, dtype=torch.int64)
    elif write == "float":
        head.assignment.data = head.assignment.data * 0.5
    else:
        head.assignment.data[3] = 20
    with pytest.raises(ValueError, match="assignment"):
        head.predict(x)
    head.class_means.normal_()
    head.assignment = torch.randperm(20)
    head.reassign()
    assert head.predict(x).max() < 20
