"""What the authors' published classifier computes, in float64, written from its description."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def moved(queue: Tensor, features: Tensor, labels: Tensor, lam: float = 1.0) -> Tensor:
    """q ← 1.9 q + 0.1 lam z for the last sample of each class, then every row is normalised."""
    queue = queue.double().clone()
    z = features.double() / features.double().norm(dim=1, keepdim=True)
    before = queue.clone()
    for i, label in enumerate(labels.tolist()):
        queue[label] = 1.9 * before[label] + 0.1 * lam * z[i]
    return queue / queue.norm(dim=1, keepdim=True)


def matched(queue: Tensor, columns: Tensor) -> tuple[Tensor, list[int]]:
    """Prototypes [D, C] in the order of the labels, and their numbers."""
    found = linear_sum_assignment((queue.double() @ columns.double()).numpy(), maximize=True)[1]
    return columns.double()[:, torch.from_numpy(found)], found.tolist()


def batch_loss(features: Tensor, rows: Tensor) -> Tensor:
    """Σ (1 - cos)²."""
    return (1 - torch.cosine_similarity(features, rows.double(), dim=1)).square().sum()


def long_tailed_loss(features: Tensor, rows: Tensor) -> Tensor:
    """½ mean((x·m - ‖m‖ ‖x‖)² / ‖x‖), the lengths constant."""
    length, m = features.detach().norm(dim=1), rows.double().norm(dim=1)
    return 0.5 * (((features * rows.double()).sum(1) - m * length).square() / length).mean()


def weights(labels: Tensor, num_classes: int) -> Tensor:
    """√(B / classes present / count), 1 for an absent class, [1, C]."""
    counts = torch.bincount(labels, minlength=num_classes).double()
    gamma = len(labels) / int((counts > 0).sum())
    return torch.where(counts > 0, (gamma / counts.clamp_min(1)).sqrt(), 1.0)[None]
