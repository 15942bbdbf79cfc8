"""What the ranks of a process group tell each other about a batch: how many samples, and which."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def in_process_group() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def all_counts(count: int, device: torch.device) -> list[int]:
    """The batch size of every rank; -1 says that a rank was given a bad batch, and is an error on all of them."""
    counts = [torch.zeros((), dtype=torch.int64, device=device) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, torch.tensor(count, device=device))
    sizes = [int(size) for size in counts]
    if count >= 0 and min(sizes) < 0:
        raise ValueError(
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
