"""The authors' classifier on two ranks of a process group."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from fastproto.compat.dl2pa import classifier as module
from fastproto.compat.dl2pa import fixed_Classifier
from fastproto.prototypes import estimate_prototypes
from fastproto.prototypes.files import make

C, D, STEPS = 9, 4, 5
SHARES = (1.0, 0.3)  # lam of each rank


def batch_of(step: int, rank: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(10 * step + rank)
    labels = torch.randperm(C, generator=generator)[: 6 - 2 * rank]
    return torch.randn(len(labels), D, generator=generator), labels


def classifier_steps(batches: list[tuple[Tensor, Tensor]], lam: float = 1) -> dict[str, Any]:
    """The class means and assignments of the authors' classifier."""
    rows = torch.randn(C, D, generator=torch.Generator().manual_seed(3))
    classifier = fixed_Classifier(D, C, make(torch.nn.functional.normalize(rows, dim=1), 2.0, "file"), gpu_id=None)
    indices, before = [], classifier.queue.clone()
    for features, labels in batches:
        classifier.forward_momentum(features, labels, lam)
        indices.append(classifier.update_fixed_center().tolist())
    return {"before": before, "queue": classifier.queue, "indices": indices}


def _worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(rank)  # class means begin at random, and must not differ
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    found = classifier_steps([batch_of(step, rank) for step in range(STEPS)])
    found["mixed"] = classifier_steps([batch_of(0, rank)], SHARES[rank])
    with patch.object(module, "estimate_prototypes", estimate_prototypes if rank == 0 else None):  # rank 0 alone
        found["estimated"] = fixed_Classifier(D, C, None).prototypes
    torch.save(found, f"{folder}/classifier-{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def classifier_on_two_ranks(folder: Path) -> list[dict[str, Any]]:
    mp.start_processes(_worker, (str(folder),), nprocs=2, start_method="spawn")
    return [torch.load(folder / f"classifier-{rank}.pt", weights_only=True) for rank in range(2)]
