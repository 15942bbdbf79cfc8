"""Each integration with the real package, as one function: train ``model`` and ``own`` within a budget.

Packages are imported inside of the functions: those that are not installed are skipped by the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastproto import PrototypeHead
from fastproto.compat import renew_assignments
from fastproto.compat.dl2pa import BLoss, fixed_Classifier
from fastproto.prototypes.files import make
from lib.integrations.digits import BATCH, Budget, C, D, digits, loader, optimiser, plain_loop, steps_per_epoch

Training = Callable[[nn.Module, PrototypeHead, Budget, Path], None]


def plain(model: nn.Module, own: PrototypeHead, budget: Budget, folder: Path) -> None:
    plain_loop(model, own, budget)


def accelerate(model: nn.Module, own: PrototypeHead, budget: Budget, folder: Path) -> None:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    whole = nn.ModuleDict({"backbone": model, "head": own})
    optimizer, schedule = optimiser(model, budget)
    whole, optimizer, batches = accelerator.prepare(whole, optimizer, loader(budget))
    every, step = round(steps_per_epoch() / budget.per_epoch), 0
    for _ in range(budget.epochs):
        for images, labels in batches:
            if step > 0 and step % every == 0:
                renew_assignments(whole)
            loss = whole["head"](whole["backbone"](images), labels)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            schedule.step()
            step += 1


def lightning(model: nn.Module, own: PrototypeHead, budget: Budget, folder: Path, *, manual: bool = False) -> None:
    import lightning as L

    from fastproto.compat.lightning import RenewAssignment

    class Foreign(L.LightningModule):
        """A module of somebody else, with the head two levels down."""

        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = not manual
            self.parts = nn.ModuleDict({"net": model, "last": nn.ModuleList([own])})

        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
            loss: Tensor = own(model(batch[0]), batch[1])
            if manual:
                optimizer: Any = self.optimizers()
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()
                self.lr_schedulers().step()  # type: ignore[union-attr]  # there is one
            return loss

        def configure_optimizers(self) -> Any:
            optimizer, schedule = optimiser(model, budget)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    trainer = L.Trainer(
        max_epochs=budget.epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[RenewAssignment(budget.per_epoch)],
    )
    trainer.fit(Foreign(), loader(budget))


def lightning_manual(model: nn.Module, own: PrototypeHead, budget: Budget, folder: Path) -> None:
    lightning(model, own, budget, folder, manual=True)


def pml(model: nn.Module, own: PrototypeHead, budget: Budget, folder: Path) -> None:
    from pytorch_metric_learning.trainers import MetricLossOnly

    from fastproto.compat.pml import PrototypeLoss

    every = round(steps_per_epoch() / budget.per_epoch)
    loss = PrototypeLoss(C, D, every)
    loss.head = own
    own.reduction = "none"
    optimizer, schedule = optimiser(model, budget)
    images, labels, *_ = digits()
    trainer = MetricLossOnly(
        models={"trunk": model},
        optimizers={"trunk_optimizer": optimizer},
        batch_size=BATCH,
        loss_funcs={"metric_loss": loss},
        dataset=torch.utils.data.TensorDataset(images, labels),
        iterations_per_epoch=steps_per_epoch(),
        lr_schedulers={"trunk_scheduler_by_iteration": schedule},
        data_device=torch.device("cpu"),
        dataloader_num_workers=0,
    )
    torch.manual_seed(budget.seed)
    trainer.train(num_epochs=budget.epochs)


def transformers(model: nn.Module, own: PrototypeHead, budget: Budget, folder: Path) -> None:
    from transformers import Trainer, TrainingArguments

    from fastproto.compat.transformers import PrototypeClassifier, RenewAssignment

    class Images(torch.utils.data.Dataset[dict[str, Tensor]]):
        def __len__(self) -> int:
            return len(digits()[0])

        def __getitem__(self, index: int) -> dict[str, Tensor]:
            return {"x": digits()[0][index], "labels": digits()[1][index]}

    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=budget.epochs,
        per_device_train_batch_size=BATCH,
        remove_unused_columns=False,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        seed=budget.seed,
        dataloader_pin_memory=False,
        max_grad_norm=0.0,
    )
    trainer = Trainer(
        PrototypeClassifier(_Named(model), own),
        arguments,
        train_dataset=Images(),
        callbacks=[RenewAssignment(budget.per_epoch)],
        optimizers=optimiser(model, budget),
    )
    trainer.train()


class _Named(nn.Module):
    """A backbone with a named input, as those of transformers have."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.model(x)
        return found


def dl2pa(
    model: nn.Module, own: PrototypeHead, budget: Budget, folder: Path, *, from_own_assignment: bool = False
) -> None:
    """The authors' order of calls: prototypes of the batch, features, class means, loss, cosines; then the renewal.

    Their loss sums over the batch: for AdamW a factor changes next to nothing. Their first assignment is that of random
    class means, or the one of ``own``.
    """
    torch.manual_seed(budget.seed)
    classifier = fixed_Classifier(D, C, make(own.prototypes, 2.0, "file"), gpu_id=0)
    if from_own_assignment:
        classifier.assignment.copy_(own.assignment)
    criterion = nn.CosineSimilarity(eps=1e-9)
    optimizer, schedule = optimiser(nn.ModuleList([model, classifier]), budget)
    batches, every, step = loader(budget), round(steps_per_epoch() / budget.per_epoch), 0
    for _ in range(budget.epochs):
        for images, target in batches:
            if step > 0 and step % every == 0:
                classifier.update_fixed_center()
            rows = classifier.polars[:, target].T
            feat = model(images)
            classifier.forward_momentum(feat.detach(), target.detach())
            loss = BLoss(criterion, feat, rows)
            classifier.predict(feat)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
    own.load_state_dict(own.state_dict() | {"assignment": classifier.assignment})


def dl2pa_same_start(model: nn.Module, own: PrototypeHead, budget: Budget, folder: Path) -> None:
    dl2pa(model, own, budget, folder, from_own_assignment=True)


# By the package that each needs.
TRAININGS: dict[str, tuple[str, Training]] = {
    "plain": ("torch", plain),
    "dl2pa": ("torch", dl2pa),
    "dl2pa_same_start": ("torch", dl2pa_same_start),
    "lightning": ("lightning", lightning),
    "lightning_manual": ("lightning", lightning_manual),
    "pml": ("pytorch_metric_learning", pml),
    "transformers": ("transformers", transformers),
    "accelerate": ("accelerate", accelerate),
}
