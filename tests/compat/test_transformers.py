"""The model and the callback for Trainer of transformers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastproto import PrototypeHead
from fastproto.compat.transformers import PrototypeClassifier


class Net(nn.Module):
    """A backbone with a named input."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.linear(x)
        return found


def classifier() -> PrototypeClassifier:
    return PrototypeClassifier(Net(), PrototypeHead(6, 4))


def test_the_model_gives_what_the_trainer_expects() -> None:
    model, x, labels = classifier(), torch.randn(8, 3), torch.arange(8) % 6
    assert set(model(labels, x=x)) == {"loss"} and model.head.updates == 1
    model.eval()
    found = model(labels, x=x)
    assert set(found) == {"loss", "logits"} and found["logits"].shape == (8, 6) and model.head.updates == 1
    assert set(model(x=x)) == {"logits"}
    assert "head.class_means" in model._ddp_params_and_buffers_to_ignore  # type: ignore[operator]  # a set


def test_inputs_that_the_trainer_has_removed_are_missed_in_one_sentence() -> None:
    with pytest.raises(TypeError, match=r"no inputs beside the labels; .*remove_unused_columns=False"):
        classifier()(labels=torch.arange(6))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")  # of others
def test_the_default_of_the_trainer_removes_the_inputs(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    with pytest.raises(TypeError, match="remove_unused_columns=False"):
        trained(tmp_path, 1, remove_unused_columns=True)


@pytest.mark.parametrize("name", ["logits", "pooler_output"])
def test_features_are_found_in_outputs(name: str) -> None:
    model, x = classifier(), torch.randn(5, 3)
    whole = PrototypeClassifier(_Wrapped(model.backbone, name), model.head)
    assert torch.equal(whole(x=x)["logits"], model(x=x)["logits"])
    with pytest.raises(TypeError, match="the backbone returned SimpleNamespace; expected a tensor"):
        PrototypeClassifier(_Wrapped(model.backbone, "else"), model.head)(x=x)


class _Wrapped(nn.Module):
    def __init__(self, net: nn.Module, name: str) -> None:
        super().__init__()
        self.net, self.name = net, name

    def forward(self, x: Tensor) -> Any:
        return SimpleNamespace(**{self.name: self.net(x)})


class Rows(torch.utils.data.Dataset[dict[str, Tensor]]):
    def __len__(self) -> int:
        return 48

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": torch.randn(3, generator=torch.Generator().manual_seed(index)), "labels": torch.tensor(index % 6)}


def trained(
    folder: Path,
    per_epoch: float,
    resume: str | None = None,
    every_n_steps: int | None = None,
    data: Any = None,
    **options: Any,
) -> tuple[Any, Any]:
    """Three epochs of six steps, and the callback."""
    from transformers import Trainer, TrainingArguments

    from fastproto.compat.transformers import RenewAssignment

    arguments = TrainingArguments(
        output_dir=str(folder),
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        learning_rate=0.05,
        **{"num_train_epochs": 3, "per_device_train_batch_size": 8, "save_strategy": "epoch"}
        | {"remove_unused_columns": False}
        | options,
    )
    callback = RenewAssignment(per_epoch, every_n_steps=every_n_steps)
    rows = Rows() if data is None else data
    trainer = Trainer(classifier(), arguments, train_dataset=rows, eval_dataset=Rows(), callbacks=[callback])
    trainer.train(resume_from_checkpoint=resume)
    return trainer, callback


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")  # of others
def test_a_resumed_run_and_accumulated_batches(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    one, callback = trained(tmp_path / "one", 1.5)
    state = one.model.state_dict()
    assert callback.last and torch.equal(callback.last["head"].permutation, state["head.assignment"])
    again, _ = trained(tmp_path / "one", 1.5, resume=str(tmp_path / "one" / "checkpoint-6"))
    assert all(torch.equal(value, again.model.state_dict()[name]) for name, value in state.items())
    assert not torch.equal(state["head.assignment"], PrototypeHead(6, 4).assignment)
    found = one.predict(Rows())
    expected = one.model(x=torch.stack([row["x"] for row in (Rows()[i] for i in range(48))]))["logits"]
    torch.testing.assert_close(torch.from_numpy(found.predictions), expected)
    halves, _ = trained(
        tmp_path / "two", 1.5, per_device_train_batch_size=4, gradient_accumulation_steps=2, save_strategy="no"
    )
    for name in ("backbone.linear.weight", "head.class_means", "head.assignment"):  # the loss is a mean
        torch.testing.assert_close(halves.model.state_dict()[name], state[name], rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")  # of others
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_steps": 13}, [6, 12]),
        ({"max_steps": 7}, [6]),
        ({"num_train_epochs": 2.5}, [6, 12]),
        ({"num_train_epochs": 2.5, "gradient_accumulation_steps": 4}, [2, 4]),  # of 4 and 2 batches
    ],
)
def test_epochs_are_counted_by_the_loader(
    options: dict[str, Any], expected: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the run does not end with an epoch."""
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    found = steps_of_renewals(monkeypatch)
    trained(tmp_path, 1, save_strategy="no", **options)
    assert found == expected


def steps_of_renewals(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Filled with the steps of the optimiser before which the runs that follow renew."""
    from fastproto.compat.transformers import callback

    found: list[int] = []
    renewed = callback.RenewAssignment.on_step_begin

    def on_step_begin(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        before = self.last
        renewed(self, args, state, control, **kwargs)
        if self.last is not before:
            found.append(state.global_step)

    monkeypatch.setattr(callback.RenewAssignment, "on_step_begin", on_step_begin)
    return found


class Endless(torch.utils.data.IterableDataset[dict[str, Tensor]]):
    def __iter__(self) -> Any:
        return (Rows()[i % 48] for i in range(10**6))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")  # of others
def test_a_loader_without_a_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    found = steps_of_renewals(monkeypatch)
    with pytest.raises(ValueError, match="the training loader has no length; expected one, or every_n_steps"):
        trained(tmp_path, 1, save_strategy="no", data=Endless(), max_steps=9)
    trained(tmp_path, 1, every_n_steps=4, save_strategy="no", data=Endless(), max_steps=9)
    assert found == [4, 8]


def test_rates_that_are_refused() -> None:
    pytest.importorskip("transformers")
    from fastproto.compat.transformers import RenewAssignment

    with pytest.raises(ValueError, match="per_epoch is 0; expected a rate > 0"):
        RenewAssignment(0)
    for every in (0, 2.5):
        with pytest.raises(ValueError, match=f"every_n_steps is {every}; expected a"):
            RenewAssignment(every_n_steps=every)  # type: ignore[arg-type]  # no integer
