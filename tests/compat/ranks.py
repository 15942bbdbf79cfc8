"""What two ranks of a process group do: a LightningModule under DDP, and the authors' classifier.

As a script: two ranks of Lightning, which starts the second by running the script again.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fastproto import PrototypeHead, estimate_prototypes
from fastproto.compat.dl2pa import fixed_Classifier
from fastproto.compat.lightning import RenewAssignment

C, D, STEPS = 9, 4, 5


class Foreign(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(5, D)
        self.inner = nn.ModuleList([PrototypeHead(C, D)])

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        loss: Tensor = self.inner[0](self.net(batch[0]), batch[1])
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def pairs() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(96, 5, generator=generator), torch.arange(96) % C)


def lightning_fit(folder: Path, devices: int, batch: int) -> dict[str, Any]:
    """Sequential batches: two ranks of 8 see the samples of one process with 16, dealt in turn."""
    callback = RenewAssignment(2)
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback],
        default_root_dir=folder,
    )
    module = Foreign()
    trainer.fit(module, DataLoader(pairs(), batch))
    ignored = getattr(trainer.strategy.model, "parameters_to_ignore", set())
    found = {"state": module.state_dict(), "ignored": sorted(ignored), "renewed": len(callback.last)}
    torch.save(found, folder / f"lightning-{trainer.global_rank}.pt")
    return found


def batch_of(step: int, rank: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(10 * step + rank)
    labels = torch.randperm(C, generator=generator)[: 6 - 2 * rank]
    return torch.randn(len(labels), D, generator=generator), labels


def classifier_steps(batches: list[tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """The class means and assignments of the authors' classifier."""
    classifier = fixed_Classifier(D, C, estimate_prototypes(C, D), gpu_id=None)
    indices = []
    for features, labels in batches:
        classifier.forward_momentum(features, labels)
        indices.append(classifier.update_fixed_center().tolist())
    return {"queue": classifier.queue, "indices": indices}


def _worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(rank)  # class means begin at random, and must not differ
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    found = classifier_steps([batch_of(step, rank) for step in range(STEPS)])
    torch.save(found, f"{folder}/classifier-{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def classifier_on_two_ranks(folder: Path) -> list[dict[str, Any]]:
    mp.start_processes(_worker, (str(folder),), nprocs=2, start_method="spawn")
    return [torch.load(folder / f"classifier-{rank}.pt", weights_only=True) for rank in range(2)]


if __name__ == "__main__":
    torch.set_num_threads(1)
    lightning_fit(Path(sys.argv[1]), devices=2, batch=8)
