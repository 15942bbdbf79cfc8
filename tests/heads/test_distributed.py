"""Several processes (gloo) against one process that sees the ranks' batches one after another."""

from __future__ import annotations

import copy
import os
import socket
from collections.abc import Iterator
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

from fastproto import PrototypeHead
from fastproto.head import exclude_from_broadcast

STEPS, C, D = 6, 9, 4
SIZES = (1_000, 100_000)


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


def rank_batch(step: int, rank: int, ragged: bool) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(100 * step + rank)
    size = 8 - (rank * 2 if ragged and step == STEPS - 1 else 0)
    labels = torch.randint(0, C, (size,), generator=generator)
    return torch.randn(size, 5, generator=generator), labels, torch.rand(size, generator=generator)


def train(model: nn.Module, inner: Model, batches: list[tuple[Tensor, Tensor, Tensor]]) -> dict[str, Any]:
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


def worker(rank: int, world: int, port: int, folder: str, cases: list[tuple[str, str]]) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=world)
    for reduction, means in cases:
        model = Model(reduction, means)
        exclude_from_broadcast(model)
        wrapped = DistributedDataParallel(model)
        sent = {name for name, _ in wrapped.module.named_buffers()} - wrapped.parameters_to_ignore
        result = train(wrapped, model, [rank_batch(step, rank, True) for step in range(STEPS)])
        torch.save(result | {"sent": sorted(sent)}, f"{folder}/{reduction}-{means}-{rank}.pt")
    torch.save(when_means_move(rank), f"{folder}/when{rank}.pt")
    torch.save(local_means(rank), f"{folder}/local{rank}.pt")
    torch.save(
        [bytes_of_a_step(rank, c, excluded) for c in SIZES for excluded in (True, False)], f"{folder}/b{rank}.pt"
    )
    # what a constructor estimates must be the same everywhere, and so must an error in an assignment
    estimated = PrototypeHead(7, 3)
    torch.save(estimated.prototypes, f"{folder}/w{rank}.pt")
    # a renewal in the background: solved on rank 0, taken over by all at the same moment
    model.head.assignment.copy_(model.head.assignment.roll(1))
    found, renewal = None, model.head.begin_renewal(aligned=True)
    while found is None:
        found = model.head.finish_renewal(renewal, wait=False)
    torch.save((model.head.prototypes, model.head.assignment, model.head.prices), f"{folder}/background{rank}.pt")
    model.head.class_means.fill_(float("nan"))
    try:
        model.head.finish_renewal(model.head.begin_renewal())
    except ValueError as error:
        Path(folder, f"error{rank}").write_text(str(error))
    # A bad batch on one rank is an error on all, not a wait for ever.
    x, y, weight = rank_batch(0, rank, False)
    try:
        model.head(model.backbone(x), y + (C if rank == 0 else 0), weight)
    except ValueError as error:
        Path(folder, f"bad{rank}").write_text(str(error))
    dist.barrier()
    dist.destroy_process_group()


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


def bytes_of_a_step(rank: int, c: int, excluded: bool) -> int:
    model = Model(c=c)
    if excluded:
        exclude_from_broadcast(model)
    wrapped = DistributedDataParallel(model)
    wrapped.register_comm_hook(None, allreduce_hook)  # as DDP does, but by a function of Python
    with counted_bytes() as sent:
        for step in range(2):
            wrapped(*rank_batch(step, rank, False)).backward()
    return sum(sent) // 2


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def read(folder: Path, name: str, world: int) -> list[Any]:
    return [torch.load(folder / f"{name}{rank}.pt", weights_only=True) for rank in range(world)]


def spawn(world: int, folder: Path, cases: list[tuple[str, str]]) -> None:
    mp.spawn(worker, (world, free_port(), str(folder), cases), nprocs=world)  # type: ignore[no-untyped-call]


def check_against_one_process(world: int, folder: Path, reduction: str, means: str) -> None:
    ranks = read(folder, f"{reduction}-{means}-", world)
    model = Model(reduction, means)
    together = [
        tuple(torch.cat(parts) for parts in zip(*(rank_batch(step, rank, True) for rank in range(world)), strict=True))
        for step in range(STEPS)
    ]
    alone = train(model, model, together)  # type: ignore[arg-type]
    assert any(alone["changes"]), "the test should see assignments change"
    for found in ranks:
        assert found["changes"] == alone["changes"]
        assert found["sent"] == [], "no buffer of the head travels before a forward"
        for name, value in alone["state"].items():
            torch.testing.assert_close(found["state"][name], value, rtol=1e-5, atol=1e-6)
            if name.startswith("head."):
                assert torch.equal(found["state"][name], ranks[0]["state"][name]), "ranks must hold the same bits"
    for step in range(STEPS):
        across = sum(found["losses"][step] for found in ranks) / world  # DDP averages gradients, hence losses
        assert across == pytest.approx(alone["losses"][step], rel=1e-5)


@pytest.mark.parametrize(("world", "cases"), [(2, [("sum", "official"), ("mean", "ema")]), (4, [("mean", "ema")])])
def test_ranks_equal_one_process(world: int, cases: list[tuple[str, str]], tmp_path: Path) -> None:
    spawn(world, tmp_path, cases)
    for reduction, means in cases:
        check_against_one_process(world, tmp_path, reduction, means)
    assert read(tmp_path, "when", world) == [[0, 1, 2, 3, 4, 5, 6, 7, 8]] * world

    local = read(tmp_path, "local", world)
    for rank, found in enumerate(local):
        assert torch.equal(found["assignment"], local[0]["assignment"]), "rank 0's means decide for all"
        assert found["means"].any()
        assert rank == 0 or not torch.equal(found["means"], local[0]["means"])

    size, wide = rank_batch(0, 0, False)[1].numel(), 4 * D
    step = 8 + size * (wide + 8) + 5 * wide  # the count; features and labels; the gradient of the backbone
    for found in read(tmp_path, "b", world):
        small, small_with_buffers, large, large_with_buffers = found
        assert small == large == step, "what a step sends does not depend on the number of classes"
        grown = (SIZES[1] - SIZES[0]) * (2 * wide + 8 + 4)
        assert large_with_buffers - small_with_buffers == grown, "the count sees the buffers that DDP would send"

    estimated = read(tmp_path, "w", world)
    assert all(torch.equal(w, estimated[0]) for w in estimated)
    background = read(tmp_path, "background", world)
    given = Model().head.prototypes
    assert not torch.allclose(background[0][0], given, atol=0.01), "the renewal turned the prototypes"
    assert all(torch.equal(a, b) for other in background for a, b in zip(other, background[0], strict=True))
    assert "labels run from" in (tmp_path / "bad0").read_text()
    assert all("rank 0 was given a bad batch" in (tmp_path / f"bad{rank}").read_text() for rank in range(1, world))
    assert all("NaN" in (tmp_path / f"error{rank}").read_text() for rank in range(world))
