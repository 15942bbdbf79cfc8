"""What the ranks of a process group tell each other: how many samples a batch has, which, and what rank 0 has found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


class OtherRankError(ValueError):
    """What is wrong is wrong on another rank, whose own error says more."""

    of_another_rank = True


def in_process_group() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_for_ddp(losses: Tensor) -> Tensor:
    """Σ of this rank's losses, scaled so that DDP's average of the gradients is the gradient of Σ over all ranks."""
    return losses.sum() * dist.get_world_size()


def mean_for_ddp(losses: Tensor, counts: list[int]) -> Tensor:
    """The same for the mean over the samples of all ranks; ``counts`` are their batch sizes."""
    return sum_for_ddp(losses) / max(sum(counts), 1)


def all_counts(count: int, device: torch.device) -> list[int]:
    """The batch size of every rank; -1 says that a rank was given a bad batch, and is an error on all of them."""
    counts = [torch.zeros((), dtype=torch.int64, device=device) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, torch.tensor(count, device=device))
    sizes = [int(size) for size in counts]
    if count >= 0 and min(sizes) < 0:
        raise OtherRankError(
            f"rank {sizes.index(-1)} was given a bad batch; expected good ones on all ranks: see its error"
        )
    return sizes


class Gathering:
    """The samples of all ranks on their way to each of them; ragged batches are padded to be sent and cut again.

    ``wait`` is each rank's own: it may come at different moments, or before other collectives or after them.
    """

    def __init__(self, features: Tensor, labels: Tensor, sizes: list[int]) -> None:
        self.sizes = sizes
        # copies: what is sent must not change meanwhile, and a sample's buffer must live until it has gone
        x, y = features.new_zeros(max(sizes), features.shape[1]), labels.new_zeros(max(sizes))
        x[: len(features)], y[: len(labels)] = features, labels
        self.sent = (x, y)
        self.parts = [[torch.empty_like(tensor) for _ in sizes] for tensor in self.sent]
        self.works = [
            dist.all_gather(into, tensor, async_op=True) for into, tensor in zip(self.parts, self.sent, strict=True)
        ]

    def wait(self) -> tuple[Tensor, Tensor]:
        """Features [ΣB, D] and labels [ΣB] in rank order."""
        for work in self.works:
            work.wait()
        features, labels = (
            torch.cat([part[:size] for part, size in zip(parts, self.sizes, strict=True)]) for parts in self.parts
        )
        return features, labels


def gather_labels(labels: Tensor) -> Tensor:
    """The labels int64 [ΣB] of all ranks in rank order; without a process group one's own."""
    if not in_process_group():
        return labels
    sizes = all_counts(len(labels), labels.device)
    padded = labels.new_zeros(max(sizes))
    padded[: len(labels)] = labels
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def rank_0_says(yes: bool, device: torch.device) -> bool:
    """Rank 0's answer on every rank; without a process group one's own."""
    if not in_process_group():
        return yes
    told = torch.tensor(yes, device=device)
    dist.broadcast(told, src=0)
    return bool(told)


def from_rank_0(compute: Callable[[], T], device: torch.device) -> T:
    """Rank 0's result on every rank, on this device; an error there is raised everywhere, so that no rank waits."""
    box: list[T | Exception | None] = [None]
    if dist.get_rank() == 0:
        try:
            box[0] = _moved(compute(), torch.device("cpu"))
        except Exception as error:
            box[0] = error
    dist.broadcast_object_list(box, src=0)
    if isinstance(box[0], Exception):
        raise box[0]
    return _moved(cast(T, box[0]), device)


def _moved(found: T, device: torch.device) -> T:
    """A tensor, or a dataclass with all of its tensors, on this device."""
    if isinstance(found, Tensor):
        return cast(T, found.to(device))
    if is_dataclass(found) and not isinstance(found, type):
        return replace(found, **{field.name: _moved(getattr(found, field.name), device) for field in fields(found)})
    return found
