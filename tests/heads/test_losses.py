"""The losses of the head: their parameters, what does not depend on them, and softmax beside its baseline."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from fastproto import PrototypeHead, ipm_loss, reference
from fastproto.baselines import FixedSoftmaxHead, TrainedPrototypesHead
from fastproto.functional import power_for

from ..helpers import unit_rows

W = torch.nn.functional.normalize(torch.randn(12, 4, generator=torch.Generator().manual_seed(3)), dim=1)


def make(**options: Any) -> PrototypeHead:
    return PrototypeHead(12, 4, prototypes=W, **options)


LOSSES: list[dict[str, Any]] = [
    {"loss": "eq6"},
    {"loss": "power", "power": 0.5},
    {"loss": "power", "power": 0.7},
    {"loss": "softmax"},
    {"loss": "softmax", "scale": "norm"},
]


@pytest.mark.parametrize("options", LOSSES, ids=str)
def test_means_and_assignment_do_not_depend_on_the_loss(options: dict[str, Any]) -> None:
    head, plain, x, y = make(**options), make(), torch.randn(30, 4), torch.randint(0, 12, (30,))
    for each in (head, plain):
        each(x, y)
        each(x, y, labels2=y.flip(0), lam=0.3)
    assert int(head.updates) == 2 and torch.equal(head.class_means, plain.class_means)
    assert torch.equal(head.reassign().permutation, plain.reassign().permutation)
    assert torch.equal(head.logits(x), plain.logits(x)) and torch.equal(head.predict(x), plain.predict(x))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_power_2_is_eq6_bit_for_bit(reduction: str) -> None:
    x, y, weight, found = torch.randn(30, 4), torch.randint(0, 12, (30,)), torch.rand(30), []
    for options in ({"loss": "eq6"}, {"loss": "power", "power": 2}):
        head, leaf = make(reduction=reduction, **options), x.clone().requires_grad_()
        losses = [head(leaf, y), head(leaf, y, weight), head(leaf, y, labels2=y.flip(0), lam=0.3)]
        torch.stack([loss.sum() for loss in losses]).sum().backward()
        assert leaf.grad is not None
        found.append([*losses, leaf.grad, head.class_means])
    assert all(map(torch.equal, *found))


def test_a_power_on_the_head_is_that_of_the_function() -> None:
    x, y = torch.randn(30, 4), torch.randint(0, 12, (30,))
    head = make(loss="power", power=0.5)
    assert torch.equal(head(x, y), ipm_loss(x, y, head.prototypes, head.assignment, power=0.5))
    assert "loss='power', power=0.5" in repr(head)


@pytest.mark.parametrize("scale", [16.0, "norm"])
def test_softmax_is_fixed_softmax_with_renewals(scale: Any) -> None:
    x, y, weight = torch.randn(30, 4), torch.randint(0, 12, (30,)), torch.rand(30)
    head, fixed = make(loss="softmax", scale=scale), FixedSoftmaxHead(12, 4, prototypes=W, scale=scale)
    torch.testing.assert_close(head(x, y, weight), fixed(x, y, weight))
    assert f"scale={scale!r}" in repr(head)
    before = head.assignment.clone()
    head.reassign()
    truth = reference.softmax_loss(x.double(), y, W.double(), head.assignment, scale).mean()
    assert not torch.equal(head.assignment, before)
    torch.testing.assert_close(head(x, y).double(), truth, rtol=1e-6, atol=0)


def test_the_scale_of_softmax_is_16_unless_given() -> None:
    x, y = torch.randn(30, 4), torch.randint(0, 12, (30,))
    assert torch.equal(make(loss="softmax")(x, y), make(loss="softmax", scale=16)(x, y))


def test_states_go_between_losses() -> None:
    x, y = torch.randn(30, 4), torch.randint(0, 12, (30,))
    eq6 = make()
    eq6(x, y)
    for options in LOSSES[1:]:
        head = make(**options)
        head.load_state_dict(eq6.state_dict())
        assert torch.equal(head.class_means, eq6.class_means)
        assert torch.equal(copy.deepcopy(head)(x, y), head(x, y))


def test_trained_prototypes_take_every_loss() -> None:
    x, y = torch.randn(30, 4), torch.randint(0, 12, (30,))
    for options in LOSSES:
        head = TrainedPrototypesHead(12, 4, weights=unit_rows(12, 4), **options)
        plain = PrototypeHead(12, 4, prototypes=head.prototypes, **options)
        plain.load_state_dict(head.state_dict())
        assert torch.equal(head(x, y), plain(x, y))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("options", LOSSES[1::2], ids=str)
def test_compiled_losses_equal_eager_ones(options: dict[str, Any]) -> None:
    x, y, found = torch.randn(30, 4), torch.randint(0, 12, (30,)), []
    for compiled in (False, True):
        head, leaf = make(**options), x.clone().requires_grad_()

        def step(x: torch.Tensor, head: PrototypeHead = head) -> torch.Tensor:
            loss: torch.Tensor = head(2 * x, y)
            return loss

        run = torch.compile(step, fullgraph=True, backend="aot_eager") if compiled else step
        loss = run(leaf)
        loss.backward()
        assert leaf.grad is not None
        found.append((loss.detach(), leaf.grad, head.class_means))
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize(("count", "dim", "power"), [(6, 3, 2.0), (20, 2, 0.5), (12, 4, 1.5)])
def test_the_power_auto_is_that_of_the_prototypes(count: int, dim: int, power: float) -> None:
    head = PrototypeHead(count, dim, loss="power", power="auto")
    x, y = torch.randn(8, dim), torch.arange(8) % count
    assert head.form.power == power_for(head.prototypes) == power and f"power={power}" in repr(head)
    assert torch.equal(head(x, y), PrototypeHead(count, dim, loss="power", power=power)(x, y))


def test_the_power_auto_needs_values() -> None:
    with torch.device("meta"), pytest.raises(ValueError, match="on the meta device, where they have no values"):
        PrototypeHead(6, 3, loss="power", power="auto")
    with torch.device("meta"):
        assert PrototypeHead(6, 3, loss="power", power=0.5).form.power == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "power"}, "power is None with loss 'power'; expected an exponent such as 0.5"),
        ({"loss": "power", "power": "atuo"}, "power is 'atuo'; expected a number such as 0.5, or 'auto'"),
        ({"power": "auto"}, "power is 'auto' with loss 'eq6'; expected none"),
        ({"loss": "power", "power": 0}, "power is 0.0; expected a number > 0, such as 0.5"),
        ({"loss": "power", "power": float("nan")}, "power is nan"),
        ({"loss": "power", "power": float("inf")}, "power is inf"),
        ({"loss": "power", "power": 101}, "power is 101.0; expected an exponent from 0.01 to 100"),
        ({"loss": "power", "power": 0.5, "scale": 16.0}, "scale is 16.0 with loss 'power'; expected none"),
        ({"power": 2.0}, "power is 2.0 with loss 'eq6'; expected none: pass loss='power'"),
        ({"loss": "official", "power": 1.0}, "power is 1.0 with loss 'official'"),
        ({"loss": "softmax", "power": 1.0}, "power is 1.0 with loss 'softmax'"),
        ({"scale": "norm"}, "scale is 'norm' with loss 'eq6'; expected none: pass loss='softmax'"),
        ({"loss": "softmax", "scale": "length"}, "scale is 'length'; expected a number > 0, such as 16, or 'norm'"),
        ({"loss": "softmax", "scale": 0.0}, "scale is 0.0"),
        ({"loss": "hinge"}, "loss is 'hinge'; expected one of 'eq6', 'power', 'official', 'softmax'"),
    ],
)
def test_parameters_that_do_not_fit_the_loss(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)
