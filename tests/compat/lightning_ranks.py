"""A LightningModule with a head, under DDP. As a script: two ranks; Lightning starts the second by running it again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fastproto import PrototypeHead
from fastproto.compat.lightning import RenewAssignment

C, D = 9, 4


class Foreign(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(5, D)
        self.inner = nn.ModuleList([PrototypeHead(C, D)])

    def on_train_start(self) -> None:
        self.ignored = sorted(getattr(self.trainer.strategy.model, "parameters_to_ignore", ()))

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        loss: Tensor = self.inner[0](self.net(batch[0]), batch[1])
        return loss

    def train_dataloader(self) -> DataLoader[Any]:
        """Lightning's own sampler would shuffle. One process gets each step's samples in the order of the ranks."""
        inputs, labels = torch.randn(96, 5, generator=torch.Generator().manual_seed(0)), torch.arange(96) % C
        dealt = torch.arange(96).view(6, 8, 2).transpose(1, 2)  # by step and rank
        own = (dealt[:, self.global_rank] if self.trainer.world_size > 1 else dealt).flatten()
        return DataLoader(TensorDataset(inputs[own], labels[own]), 16 // self.trainer.world_size)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def lightning_fit(folder: Path, devices: int) -> dict[str, Any]:
    """Two ranks with batches of 8 see the samples of one process with batches of 16."""
    callback = RenewAssignment(2)
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback],
        default_root_dir=folder,
    )
    module = Foreign()
    trainer.fit(module)
    found = {"state": module.state_dict(), "ignored": module.ignored, "renewed": len(callback.last)}
    torch.save(found, folder / f"lightning-{trainer.global_rank}.pt")
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    lightning_fit(Path(sys.argv[1]), devices=2)
