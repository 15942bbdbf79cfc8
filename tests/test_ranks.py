"""Several processes (gloo) against one process that sees the ranks' batches one after another."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fastproto import PrototypeHead
from fastproto.head import exclude_from_broadcast

STEPS, C, D = 6, 9, 4


class Model(nn.Module):
    def __init__(self, reduction: str, means: str) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        prototypes = nn.functional.normalize(torch.randn(C, D, generator=generator), dim=1)
        self.backbone = nn.Linear(5, D, bias=False)
        nn.init.normal_(self.backbone.weight, generator=generator)
        self.head = PrototypeHead(C, D, prototypes=prototypes, reduction=reduction, means=means)

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


def worker(rank: int, world: int, port: int, folder: str, reduction: str, means: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=world)
    model = Model(reduction, means)
    exclude_from_broadcast(model)
    wrapped = DistributedDataParallel(model)
    sent = {name for name, _ in wrapped.module.named_buffers()} - wrapped.parameters_to_ignore
    result = train(wrapped, model, [rank_batch(step, rank, True) for step in range(STEPS)])
    torch.save(result | {"sent": sorted(sent)}, f"{folder}/{rank}.pt")
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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("world", "reduction", "means"), [(2, "mean", "ema"), (2, "sum", "official"), (4, "mean", "ema")]
)
def test_ranks_equal_one_process(world: int, reduction: str, means: str, tmp_path: Path) -> None:
    mp.spawn(worker, (world, free_port(), str(tmp_path), reduction, means), nprocs=world)  # type: ignore[no-untyped-call]
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(world)]
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
    estimated = [torch.load(tmp_path / f"w{rank}.pt", weights_only=True) for rank in range(world)]
    assert all(torch.equal(w, estimated[0]) for w in estimated)
    background = [torch.load(tmp_path / f"background{rank}.pt", weights_only=True) for rank in range(world)]
    assert not torch.allclose(background[0][0], model.head.prototypes, atol=0.01), "the renewal turned the prototypes"
    assert all(torch.equal(a, b) for other in background for a, b in zip(other, background[0], strict=True))
    assert "labels run from" in (tmp_path / "bad0").read_text()
    assert all("rank 0 was given a bad batch" in (tmp_path / f"bad{rank}").read_text() for rank in range(1, world))
    assert all("NaN" in (tmp_path / f"error{rank}").read_text() for rank in range(world))
