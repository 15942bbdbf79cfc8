"""The callback for any LightningModule, with a module of somebody else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from fastproto import PrototypeHead
from fastproto.compat.lightning import RenewAssignment

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*TreeSpec:FutureWarning", "ignore:The '.*dataloader' does not have many workers", "ignore:.*:UserWarning"
)
BATCHES, SIZE = 6, 8


class Foreign(L.LightningModule):
    """Two heads; each batch says how often they were renewed before it."""

    def __init__(self, renewal: RenewAssignment | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(3, 4)
        self.inner = nn.ModuleDict({"one": PrototypeHead(6, 4), "two": PrototypeHead(6, 4, seed=1)})
        self.renewal, self.seen = renewal, list[int]()
        self.before: Tensor | None = None

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        if self.renewal is not None and self.renewal.last and self.renewal.last is not self.before:
            self.seen.append(self.trainer.current_epoch * BATCHES + index)
            self.before = self.renewal.last  # type: ignore[assignment]  # only compared
        x = self.net(batch[0])
        loss: Tensor = self.inner["one"](x, batch[1]) + self.inner["two"](x, batch[1])
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def batches() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCHES * SIZE, 3, generator=generator)
    return DataLoader(TensorDataset(x, torch.arange(len(x)) % 6), SIZE)


def fit(
    module: L.LightningModule, renewal: RenewAssignment, folder: Path, epochs: int = 3, **options: Any
) -> L.Trainer:
    options = {"enable_checkpointing": False, "logger": False} | options
    resumed, loader = options.pop("ckpt_path", None), options.pop("loader", batches())
    more = options.pop("more", [])
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[renewal, *more],
        **options,
    )
    trainer.fit(module, loader, ckpt_path=resumed)
    return trainer


@pytest.mark.parametrize(
    ("renewal", "options", "expected"),
    [
        (lambda: RenewAssignment(), {}, [6, 12]),
        (lambda: RenewAssignment(2), {}, [3, 6, 9, 12, 15]),
        (lambda: RenewAssignment(every_n_batches=4), {}, [4, 8, 12, 16]),
        (lambda: RenewAssignment(), {"accumulate_grad_batches": 3}, [6, 12]),
    ],
)
def test_renewals_run_before_their_batches(
    renewal: Any, options: dict[str, Any], expected: list[int], tmp_path: Path
) -> None:
    callback = renewal()
    module = Foreign(callback)
    fit(module, callback, tmp_path, **options)
    assert module.seen == expected
    assert set(callback.last) == {"inner.one", "inner.two"}
    assert all(
        torch.equal(callback.last[name].permutation, module.get_submodule(name).assignment) for name in callback.last
    )


def test_the_heads_are_left_out_of_the_broadcast_of_buffers(tmp_path: Path) -> None:
    module = Foreign()
    fit(module, RenewAssignment(), tmp_path, epochs=1)
    assert {"inner.one.prototypes", "inner.two.class_means"} <= module._ddp_params_and_buffers_to_ignore


def test_figures_are_logged_where_asked(tmp_path: Path) -> None:
    trainer = fit(Foreign(), RenewAssignment(log=True), tmp_path, epochs=2)
    assert 0 <= trainer.callback_metrics["renewal/inner.one/changed"] <= 1
    assert {f"renewal/inner.two/{name}" for name in ("changed", "objective", "gap")} <= trainer.callback_metrics.keys()
    assert not any("renewal" in name for name in fit(Foreign(), RenewAssignment(), tmp_path).callback_metrics)


def test_a_resumed_run_renews_before_the_same_batches(tmp_path: Path) -> None:
    """Every 4 batches of 6 in an epoch: the renewals of the second epoch depend on where the first one ended."""
    whole = Foreign(first := RenewAssignment(every_n_batches=4))
    fit(whole, first, tmp_path)
    trainer = fit(Foreign(), RenewAssignment(every_n_batches=4), tmp_path, epochs=1)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    again = Foreign(second := RenewAssignment(every_n_batches=4))
    fit(again, second, tmp_path, ckpt_path=tmp_path / "one.ckpt")
    assert again.seen == [8, 12, 16]
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in whole.state_dict().items())


class Endless(IterableDataset[tuple[Tensor, Tensor]]):
    def __iter__(self) -> Any:
        return iter(batches().dataset)  # type: ignore[call-overload]  # a list of pairs


def test_what_cannot_be_renewed_is_refused(tmp_path: Path) -> None:
    class Empty(Foreign):
        def __init__(self) -> None:
            super().__init__()
            del self.inner

    with pytest.raises(ValueError, match="Empty has no PrototypeHead inside; expected at least one"):
        fit(Empty(), RenewAssignment(), tmp_path)
    endless = DataLoader(Endless(), SIZE)
    with pytest.raises(ValueError, match="the training loader has no length; expected one, or every_n_batches"):
        L.Trainer(max_epochs=1, accelerator="cpu", barebones=True, callbacks=[RenewAssignment()]).fit(
            Foreign(), endless
        )
    callback = RenewAssignment(every_n_batches=4)
    module = Foreign(callback)
    fit(module, callback, tmp_path, epochs=1, loader=endless)
    assert module.seen == [4]
    for rate, every in ((0, None), (float("nan"), None), (1, 0), (1, 2.5)):
        with pytest.raises(ValueError, match="expected a"):
            RenewAssignment(rate, every_n_batches=every)  # type: ignore[arg-type]  # no integer


def test_a_second_fit_begins_anew(tmp_path: Path) -> None:
    callback = RenewAssignment()
    for _ in range(2):
        callback.last = {}
        module = Foreign(callback)
        fit(module, callback, tmp_path)
        assert module.seen == [6, 12]


def test_two_callbacks_renew_a_head_each(tmp_path: Path) -> None:
    module = Foreign()
    one, two = (RenewAssignment(every_n_batches=2, head=module.inner[name]) for name in ("one", "two"))
    before = module.inner["two"].assignment.clone()  # type: ignore[operator]  # a tensor
    fit(module, one, tmp_path, epochs=1)
    assert set(one.last) == {""} and torch.equal(module.inner["two"].assignment, before)  # type: ignore[arg-type]
    trainer = fit(module, one, tmp_path, epochs=1, more=[two])
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    for callback, name in ((one, "one"), (two, "two")):
        assert torch.equal(callback.last[""].permutation, module.get_submodule(f"inner.{name}").assignment)
