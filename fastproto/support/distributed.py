"""Communication between the ranks of a process group: batch sizes, samples, and results of rank 0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


class OtherRankError(ValueError):
    """An error on another rank, which raises one that says more."""

    of_another_rank = True


def in_process_group() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_for_ddp(losses: Tensor) -> Tensor:
    """Sum of this rank's losses, scaled so that DDP's mean gradient is the gradient of the sum over all ranks."""
    return losses.sum() * dist.get_world_size()


def mean_for_ddp(losses: Tensor, counts: list[int]) -> Tensor:
    """As :func:`sum_for_ddp`, for the mean over the samples of all ranks; ``counts`` are their batch sizes."""
    return sum_for_ddp(losses) / max(sum(counts), 1)


def all_counts(count: int, device: torch.device) -> list[int]:
    """Gather the batch size of every rank.

    A rank with a bad batch passes -1, so that every other rank raises OtherRankError.
    """
    counts = [torch.zeros((), dtype=torch.int64, device=device) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, torch.tensor(count, device=device))
    sizes = [int(size) for size in counts]
    if count >= 0 and min(sizes) < 0:
        raise OtherRankError(
            f"rank {sizes.index(-1)} was given a bad batch; expected good ones on all ranks: see its error"
        )
    return sizes


def all_numbers(number: float, device: torch.device) -> list[float]:
    """Gather a number of every rank, as float64."""
    numbers = [torch.zeros((), dtype=torch.float64, device=device) for _ in range(dist.get_world_size())]
    dist.all_gather(numbers, torch.tensor(number, dtype=torch.float64, device=device))
    return [float(one) for one in numbers]


class Gathering:
    """An asynchronous all-gather of features and labels; ragged batches are padded, and cut again by ``wait``.

    Each rank may call ``wait`` at any time, before or after other collectives.
    """

    def __init__(self, features: Tensor, labels: Tensor, sizes: list[int]) -> None:
        self.sizes = sizes
        # copies: the buffers must stay alive and unchanged until they have been sent
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
    """The ``yes`` of rank 0 on every rank; without a process group, ``yes`` itself."""
    if not in_process_group():
        return yes
    told = torch.tensor(yes, device=device)
    dist.broadcast(told, src=0)
    return bool(told)


def from_rank_0(compute: Callable[[], T], device: torch.device) -> T:
    """Compute on rank 0 and broadcast the result to ``device`` on every rank; an error of rank 0 is raised on all."""
    box: list[T | Exception | None] = [None]
    if dist.get_rank() == 0:
        try:
            box[0] = _to_device(compute(), torch.device("cpu"))
        except Exception as error:
            box[0] = error
    dist.broadcast_object_list(box, src=0)
    if isinstance(box[0], Exception):
        raise box[0]
    return _to_device(cast(T, box[0]), device)


def _to_device(found: T, device: torch.device) -> T:
    """Move a tensor, or all tensors of a dataclass, to a device."""
    if isinstance(found, Tensor):
        return cast(T, found.to(device))
    if is_dataclass(found) and not isinstance(found, type):
        return replace(found, **{field.name: _to_device(getattr(found, field.name), device) for field in fields(found)})
    return found
