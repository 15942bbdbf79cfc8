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


def trained(folder: Path, per_epoch: float, resume: str | None = None, **options: Any) -> tuple[Any, Any]:
    """Three epochs of six steps, and the callback."""
    from transformers import Trainer, TrainingArguments

    from fastproto.compat.transformers import RenewAssignment

    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=3,
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        learning_rate=0.05,
        **{"per_device_train_batch_size": 8, "save_strategy": "epoch"} | options,
    )
    callback = RenewAssignment(per_epoch)
    trainer = Trainer(classifier(), arguments, train_dataset=Rows(), eval_dataset=Rows(), callbacks=[callback])
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


def test_rates_that_are_refused() -> None:
    pytest.importorskip("transformers")
    from fastproto.compat.transformers import RenewAssignment

    with pytest.raises(ValueError, match="per_epoch is 0; expected a rate > 0"):
        RenewAssignment(0)
