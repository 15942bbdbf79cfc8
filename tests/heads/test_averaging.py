"""Averages of weights and buffers leave the assignment and the prototypes as they are: those of the newest head."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import swa_utils

from fastproto import PrototypeHead
from fastproto.baselines import ETFHead

from ..helpers import unit_rows

Update = Callable[[nn.Module], None]
EXACT = ("assignment", "prototypes", "prices")


def model(c: int = 20, d: int = 5) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, d), PrototypeHead(c, d, prototypes=unit_rows(c, d)))


def averaged(net: nn.Module, **options: Any) -> tuple[nn.Module, Update]:
    average = swa_utils.AveragedModel(net, **options)
    return average.module, average.update_parameters


def timm_average(net: nn.Module, name: str) -> tuple[nn.Module, Update]:
    utils = pytest.importorskip("timm.utils")
    average = getattr(utils, name)(net, decay=0.9)
    return (average.ema if name == "ModelEma" else average.module), average.update


def by_hand(net: nn.Module, step: Callable[[torch.Tensor, torch.Tensor], object]) -> tuple[nn.Module, Update]:
    average = copy.deepcopy(net)

    def update(source: nn.Module) -> None:
        new = source.state_dict()
        with torch.no_grad():
            for name, value in average.state_dict(keep_vars=True).items():
                step(value, new[name])

    return average, update


def swap(value: torch.Tensor, new: torch.Tensor) -> None:
    """The mean in the copy, by ``.data``, which leaves no trace in the version of a tensor."""
    value.data.copy_(value.data * 0.9 + new.data * 0.1)


def exchanged(value: torch.Tensor, new: torch.Tensor) -> None:
    value.data = value.data * 0.9 + new.data * 0.1


def floats_only(value: torch.Tensor, new: torch.Tensor) -> None:
    if value.is_floating_point():
        value.mul_(0.9).add_(new.detach(), alpha=0.1)


def through_numpy(value: torch.Tensor, new: torch.Tensor) -> None:
    value.detach().numpy()[...] = (0.9 * value.detach().numpy() + 0.1 * new.numpy()).astype(new.numpy().dtype)


TOOLS: dict[str, Callable[[nn.Module], tuple[nn.Module, Update]]] = {
    "copied buffers": lambda net: averaged(net),
    "ema": lambda net: averaged(net, avg_fn=swa_utils.get_ema_avg_fn(0.9), use_buffers=True),
    "slow ema": lambda net: averaged(net, avg_fn=swa_utils.get_ema_avg_fn(0.9999), use_buffers=True),
    "multi ema": lambda net: averaged(net, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9), use_buffers=True),
    "swa": lambda net: averaged(net, avg_fn=swa_utils.get_swa_avg_fn(), use_buffers=True),
    "ModelEma": lambda net: timm_average(net, "ModelEma"),
    "ModelEmaV2": lambda net: timm_average(net, "ModelEmaV2"),
    "ModelEmaV3": lambda net: timm_average(net, "ModelEmaV3"),
    "data": lambda net: by_hand(net, swap),
    "new data": lambda net: by_hand(net, exchanged),
    "floats only": lambda net: by_hand(net, floats_only),
    "numpy": lambda net: by_hand(net, through_numpy),
    "lerp": lambda net: by_hand(
        net, lambda value, new: value.lerp_(new, 0.1) if value.is_floating_point() else value.copy_(new)
    ),
}


def renew(net: nn.Module, turned: bool) -> None:
    head = net[1]
    head.class_means.normal_()
    if turned:
        head.align(starts=1)
    else:
        head.reassign()


def assert_exact(average: PrototypeHead, source: PrototypeHead) -> None:
    labels = average.predict(torch.randn(50, 5), k=20)
    assert torch.equal(labels.sort(dim=1).values, torch.arange(20).expand(50, 20))
    for name in EXACT:
        assert torch.equal(getattr(average, name), getattr(source, name)), name


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("looked_at", [False, True])
def test_averages_have_the_newest_exact_state(tool: str, looked_at: bool) -> None:
    net = model()
    average, update = TOOLS[tool](net)
    x = torch.randn(30, 5)
    for turned in (False, False, True, False, True, True):
        renew(net, turned)
        net[1](x, torch.randint(0, 20, (30,)))
        update(net)
        update(net)
        if looked_at:
            assert_exact(average[1], net[1])
    assert_exact(average[1], net[1])
    assert average[1].class_means.isfinite().all()
    restored = model()
    restored.load_state_dict(average.state_dict())
    assert_exact(restored[1], net[1])


def test_averages_that_are_copied_back_give_way_to_the_newest() -> None:
    """What weight averaging of trainers does: swap for a validation, swap back, and copy at the end."""
    for turned in (False, True):
        net = model()
        average, update = averaged(net, avg_fn=swa_utils.get_ema_avg_fn(0.9), use_buffers=True)
        for _ in range(3):
            renew(net, turned)
            update(net)
            newest = {name: getattr(net[1], name).clone() for name in EXACT}
            for _ in range(2):  # in and out
                for mine, theirs in zip(average.buffers(), net.buffers(), strict=True):
                    mine.data, theirs.data = theirs.data.clone(), mine.data.clone()
                net.eval()
                assert all(torch.equal(getattr(net[1], name), newest[name]) for name in EXACT)
                net.train()
        renew(net, turned)  # the average has not seen this one
        newest = {name: getattr(net[1], name).clone() for name in EXACT}
        for mine, theirs in zip(average.buffers(), net.buffers(), strict=True):
            theirs.data.copy_(mine.data)
        del average, update
        net[1].predict(torch.randn(3, 5))
        assert all(torch.equal(getattr(net[1], name), newest[name]) for name in EXACT)


@pytest.mark.filterwarnings("ignore")  # of Lightning
@pytest.mark.parametrize("name", ["EMAWeightAveraging", "WeightAveraging"])
def test_callbacks_of_lightning(name: str) -> None:
    lightning = pytest.importorskip("lightning.pytorch")
    callbacks = pytest.importorskip("lightning.pytorch.callbacks")
    if not hasattr(callbacks, name):
        pytest.skip(f"this Lightning has no {name}")
    newest: dict[str, torch.Tensor] = {}

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = model()

        def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
            loss: torch.Tensor = self.net[1](self.net[0](batch[0]), batch[1])
            return loss

        def validation_step(self, batch: list[torch.Tensor], _: int) -> None:
            head = self.net[1]
            assert torch.equal(head.predict(self.net[0](batch[0]), 20).sort(1).values[0], torch.arange(20))
            assert all(torch.equal(getattr(head, name), value) for name, value in newest.items())

        def on_train_epoch_end(self) -> None:
            renew(self.net, True)
            newest.update({name: getattr(self.net[1], name).clone() for name in EXACT})

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.net[0].parameters(), 0.1)

    data = torch.utils.data.TensorDataset(torch.randn(8, 6), torch.randint(0, 20, (8,)))
    loader = torch.utils.data.DataLoader(data, batch_size=4)
    options = {f"enable_{name}": False for name in ("checkpointing", "progress_bar", "model_summary")}
    module, average = Module(), getattr(callbacks, name)()
    trainer = lightning.Trainer(max_epochs=3, accelerator="cpu", logger=False, callbacks=[average], **options)
    trainer.fit(module, loader, loader)
    module.eval()
    assert all(torch.equal(getattr(module.net[1], name), value) for name, value in newest.items())


def test_an_average_outlives_its_source() -> None:
    net = model()
    average, update = TOOLS["ema"](net)
    renew(net, True)
    update(net)
    update(net)
    newest = {name: getattr(net[1], name).clone() for name in EXACT}
    del net
    average[1].predict(torch.randn(3, 5))
    assert all(torch.equal(getattr(average[1], name), value) for name, value in newest.items())


def test_copies_that_nobody_writes_to_keep_their_own() -> None:
    net = model()
    renew(net, True)
    best, state = copy.deepcopy(net), copy.deepcopy(net.state_dict())
    again = copy.deepcopy(best)
    renew(net, True)
    for kept in (best, again, pickle.loads(pickle.dumps(best)), copy.copy(best)):
        kept.eval().double().float().to("cpu")
        kept[1].predict(torch.randn(3, 5))
        assert all(torch.equal(getattr(kept[1], name), state[f"1.{name}"]) for name in EXACT)
    net.load_state_dict(state)
    net[1].predict(torch.randn(3, 5))
    assert all(torch.equal(getattr(net[1], name), state[f"1.{name}"]) for name in EXACT)


def test_a_copy_that_has_decided_for_itself_follows_nobody() -> None:
    template = model()
    net = copy.deepcopy(template)
    average, update = TOOLS["ema"](net)
    renew(template, True)
    renew(net, True)
    for _ in range(3):
        update(net)
    assert_exact(average[1], net[1])
    assert not torch.equal(net[1].prototypes, template[1].prototypes)
    net[1].assignment.data.zero_()
    before = net[1].prototypes.clone()
    net[1].predict(torch.randn(3, 5))
    assert torch.equal(net[1].assignment, average[1].assignment) and torch.equal(net[1].prototypes, before)


def test_values_that_are_set_on_purpose_stay() -> None:
    net = model()
    twin, other, rows = copy.deepcopy(net), torch.randperm(20), unit_rows(20, 5)
    twin[1].assignment.copy_(other)
    twin[1].predict(torch.randn(3, 5))
    assert torch.equal(twin[1].assignment, other) and torch.equal(twin[1].prototypes, net[1].prototypes)
    net[1].prototypes.copy_(rows)
    net[1].prototypes[3] = rows[4]
    net[1].predict(torch.randn(3, 5))
    assert torch.equal(net[1].prototypes[3], rows[4]) and torch.equal(net[1].prototypes[:3], rows[:3])
    average, update = TOOLS["ema"](net)
    net[1].assignment = other.flip(0)
    net[1].predict(torch.randn(3, 5))
    update(net)
    update(net)
    assert_exact(average[1], net[1])


def test_called_with_other_buffers_a_head_uses_these() -> None:
    net = model()
    twin = copy.deepcopy(net)
    renew(net, True)
    given = {name: value.clone() for name, value in net[1].named_buffers()}
    for head in (net[1], twin[1]):
        own = head.assignment.clone()
        loss = torch.func.functional_call(head.eval(), given, (x := torch.randn(4, 5), y := torch.arange(4)))
        torch.testing.assert_close(loss, net[1].eval()(x, y))
        assert torch.equal(head.assignment, own) and torch.equal(given["assignment"], net[1].assignment)


def test_the_mean_of_states_is_refused() -> None:
    states = []
    for _ in range(2):
        net = model()
        renew(net, True)
        states.append(net.state_dict())
    for mean in (
        {name: (states[0][name].double() + states[1][name].double()) / 2 for name in states[0]},
        {name: ((states[0][name] + states[1][name]) / 2).to(states[0][name].dtype) for name in states[0]},
        {name: torch.lerp(a.double(), states[1][name].double(), 0.1).to(a.dtype) for name, a in states[0].items()},
    ):
        for assign in (False, True):
            with pytest.raises(RuntimeError, match="assignment"):
                model().load_state_dict(mean, assign=assign)
        with pytest.raises(RuntimeError, match="assignment"):
            model().load_state_dict(mean, strict=False)


def test_heads_without_means_survive_too() -> None:
    net = nn.Sequential(nn.Linear(6, 5), ETFHead(6, 5))
    average, update = TOOLS["ema"](net)
    for _ in range(4):
        update(net)
    labels = average[1].predict(torch.randn(9, 5), k=6)
    assert torch.equal(labels.sort(dim=1).values, torch.arange(6).expand(9, 6))
    assert all(torch.equal(a, b) for a, b in zip(average[1].buffers(), net[1].buffers(), strict=True))
