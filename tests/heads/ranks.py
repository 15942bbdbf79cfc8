"""What the ranks of a process group (gloo) do in the tests of several processes: each topic gives a result per rank."""

from __future__ import annotations

import copy
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from fastproto import PrototypeHead, exclude_from_broadcast
from fastproto.support.distributed import gather_labels

STEPS, C, D = 6, 9, 4
SIZES = (1_000, 20_000)
Batch = tuple[Tensor, Tensor, Tensor]


class Model(nn.Module):
    def __init__(self, reduction: str = "mean", means: str = "ema", c: int = C, sync: bool = True) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        prototypes = nn.functional.normalize(torch.randn(c, D, generator=generator), dim=1)
        self.backbone = nn.Linear(5, D, bias=False)
        nn.init.normal_(self.backbone.weight, generator=generator)
        self.head = PrototypeHead(c, D, prototypes=prototypes, reduction=reduction, means=means, sync_class_means=sync)

    def forward(self, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        loss: Tensor = self.head(self.backbone(x), y, weight)
        return loss


def rank_batch(step: int, rank: int, ragged: bool) -> Batch:
    generator = torch.Generator().manual_seed(100 * step + rank)
    size = 8 - (rank * 2 if ragged and step == STEPS - 1 else 0)
    labels = torch.randint(0, C, (size,), generator=generator)
    return torch.randn(size, 5, generator=generator), labels, torch.rand(size, generator=generator)


def train(model: nn.Module, inner: Model, batches: list[Batch]) -> dict[str, Any]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses, changes = [], []
    for step, (x, y, weight) in enumerate(batches):
        if step % 2 == 1:
            changes.append(inner.head.reassign().changed)
        loss = model(x, y, weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return {"losses": losses, "changes": changes, "state": {k: v.clone() for k, v in inner.state_dict().items()}}


def training(reduction: str, means: str, rank: int) -> dict[str, Any]:
    """A run with DDP, and the buffers that it would send before a forward."""
    model = Model(reduction, means)
    exclude_from_broadcast(model)
    wrapped = DistributedDataParallel(model)
    sent = {name for name, _ in wrapped.module.named_buffers()} - wrapped.parameters_to_ignore
    return train(wrapped, model, [rank_batch(step, rank, True) for step in range(STEPS)]) | {"sent": sorted(sent)}


def when_means_move(rank: int) -> list[int]:
    """``updates`` after forward, after backward, and where something needs the state before there was a backward."""
    model = Model()
    head, batch = model.head, rank_batch(0, rank, False)
    seen = []
    loss = model(*batch)
    seen.append(int(head.updates))  # on their way
    loss.backward()
    seen.append(int(head.updates))
    model(*batch)
    model(*batch)
    seen.append(int(head.updates))  # the next forward counts those of the last
    seen.append(int(head.state_dict()["updates"]))
    for need in (head.reassign, head.eval, lambda: copy.deepcopy(head), head.half, head.settle):
        head.train()
        model(*batch)
        need()
        seen.append(int(head.updates))
    return seen


def local_means(rank: int) -> dict[str, Tensor]:
    model = Model(sync=False)
    train(model, model, [rank_batch(step, rank, True) for step in range(STEPS)])
    model.head.reassign()
    return {"means": model.head.class_means, "assignment": model.head.assignment}


@contextmanager
def counted_bytes() -> Iterator[list[int]]:
    """What this rank hands to the collectives that Python calls."""
    sent: list[int] = []

    def counting(original: Any, tensors: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            sent.extend(tensor.nbytes for tensor in tensors(*args))
            return original(*args, **options)

        return call

    originals = {
        "all_gather": lambda parts, tensor: [tensor],
        "broadcast": lambda tensor: [tensor],
        "all_reduce": lambda tensor: [tensor],
        "_broadcast_coalesced": lambda group, tensors, *rest: tensors,  # how DDP sends buffers
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, tensors in originals.items():
            patch.setattr(dist, name, counting(getattr(dist, name), tensors))
        yield sent


def bytes_of_a_step(rank: int) -> dict[tuple[int, bool], int]:
    """By number of classes, and whether the head's buffers are excluded."""
    found = {}
    for c in SIZES:
        for excluded in (True, False):
            model = Model(c=c)
            if excluded:
                exclude_from_broadcast(model)
            wrapped = DistributedDataParallel(model)
            wrapped.register_comm_hook(None, allreduce_hook)  # as DDP does, but by a function of Python
            with counted_bytes() as sent:
                for step in range(2):
                    wrapped(*rank_batch(step, rank, False)).backward()
            found[c, excluded] = sum(sent) // 2
    return found


def estimated_prototypes(rank: int) -> Tensor:
    return PrototypeHead(7, 3).prototypes


def background_renewal(rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Solved on rank 0, taken over by all at the same moment."""
    head = trained_head(rank)
    found, renewal = None, head.begin_renewal(aligned=True)
    while found is None:
        found = head.finish_renewal(renewal, wait=False)
    return head.prototypes, head.assignment, head.prices


def error_of_a_renewal(rank: int) -> str:
    head = trained_head(rank)
    head.class_means.fill_(float("nan"))
    with pytest.raises(ValueError) as caught:
        head.finish_renewal(head.begin_renewal())
    return str(caught.value)


def error_of_a_bad_batch(rank: int) -> str:
    """The batch is bad on rank 0 alone."""
    model, (x, y, weight) = Model(), rank_batch(0, rank, False)
    with pytest.raises(ValueError) as caught:
        model(x, y + (C if rank == 0 else 0), weight)
    return str(caught.value)


def trained_head(rank: int) -> PrototypeHead:
    model = Model()
    train(model, model, [rank_batch(step, rank, False) for step in range(2)])
    return model.head


def labels_of_all(rank: int) -> Tensor:
    return gather_labels(rank_batch(STEPS - 1, rank, True)[1])


TOPICS: dict[str, Callable[[int], Any]] = {
    "sum-official": lambda rank: training("sum", "official", rank),
    "mean-ema": lambda rank: training("mean", "ema", rank),
    "when_means_move": when_means_move,
    "local_means": local_means,
    "bytes_of_a_step": bytes_of_a_step,
    "estimated_prototypes": estimated_prototypes,
    "background_renewal": background_renewal,
    "error_of_a_renewal": error_of_a_renewal,
    "error_of_a_bad_batch": error_of_a_bad_batch,
    "labels_of_all": labels_of_all,
}


def worker(rank: int, world: int, folder: str, topics: list[str]) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(rank)  # fixed, and not what another rank draws
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    for topic in topics:
        torch.save(TOPICS[topic](rank), f"{folder}/{topic}-{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def on_ranks(world: int, folder: Path, topics: list[str]) -> dict[str, list[Any]]:
    """The results of these topics, one after the other in the same processes: for each a list by rank."""
    # one process imports what takes seconds, and the ranks are its forks
    multiprocessing.set_forkserver_preload([__name__, "torch._dynamo", "numba"])
    mp.start_processes(worker, (world, str(folder), topics), nprocs=world, start_method="forkserver")
    return {
        topic: [torch.load(folder / f"{topic}-{rank}.pt", weights_only=True) for rank in range(world)]
        for topic in topics
    }
