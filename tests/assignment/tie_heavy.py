"""Matrices in which many permutations are equally good or nearly so, by method="lapjv", against SciPy.

``python -m tests.assignment.tie_heavy FIRST END`` runs these seeds: a process that a test can stop if it hangs.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from fastproto import assign, solve

Array = np.ndarray[Any, Any]
Generator = np.random.Generator
NOISE = [0.0, 1e-15, 1e-12, 1e-9, 1e-7, 1e-6, 1e-5, 1e-3]
ALL_EQUAL = [  # every permutation is optimal, and rounding of the large entries forbids a certificate
    np.array([[1e20, 1e20], [-1e20, -1e20]]),
    np.add.outer([1e12, -1e12, 0.5], [0.0, 1e3, 7.0]),
]


def matrix(rng: Generator) -> Array:
    most = 13 if rng.random() < 0.9 else 61
    n = int(rng.integers(1, most))
    m = n if rng.random() < 0.7 else int(rng.integers(1, most))
    kind = rng.integers(6)
    if kind == 0:
        cost = rng.integers(0, rng.integers(2, 6), (n, m)).astype(float)
    elif kind == 1:  # copies of a few rows
        cost = rng.random((3, m))[rng.integers(0, 3, n)]
    elif kind == 2:  # copies of a few columns
        cost = rng.random((n, 3))[:, rng.integers(0, 3, m)]
    elif kind == 3:
        cost = rng.random((n, 1)) + rng.random(m)
    elif kind == 4:  # many rows want the same few columns, and the others are far
        cost = np.where(np.arange(m) < m // 2, 0.0, 10.0 ** rng.integers(0, 9)) + np.zeros((n, 1))
    else:
        cost = np.round(rng.random((n, m)), 1) * 10.0 ** rng.integers(-9, 9)
    cost = cost * (1 + rng.choice(NOISE) * rng.normal(size=(n, m)))
    cost += rng.choice(NOISE) * rng.normal(size=(n, m))
    if rng.random() < 0.1:
        cost[rng.random((n, m)) < 0.3] = np.inf
    return cost


def check_matrix(rng: Generator) -> str:
    cost = matrix(rng)
    try:
        rows, columns = linear_sum_assignment(cost)
    except ValueError:
        return "infeasible"
    best = float(cost[rows, columns].sum())
    found = solve(cost, method="lapjv")
    permutation = found.permutation.numpy()
    mine = np.flatnonzero(permutation >= 0)
    assert len(set(permutation[mine])) == len(mine) == min(cost.shape)
    assert cost[mine, permutation[mine]].sum() - best <= 1e-6 * max(1.0, abs(best)), cost
    assert found.certified, cost
    return found.method


def check_all_equal(cost: Array) -> None:
    found = solve(cost, method="lapjv")
    assert sorted(found.permutation.tolist()) == list(range(len(cost)))
    assert found.gap == 0 and not found.certified and "all permutations are equally good" in found.reason, found


def check_means(rng: Generator) -> str:
    c, d = int(rng.integers(1, 30)), int(rng.integers(2, 6))
    q, w = (rng.normal(size=(3, d))[rng.integers(0, 3, c)] for _ in range(2))
    q, w = (x + rng.choice(NOISE) * rng.normal(size=(c, d)) for x in (q, w))
    q[rng.random(c) < rng.choice([0.0, 0.3])] = 0
    found = assign(torch.from_numpy(q), torch.from_numpy(w), method="lapjv")
    norms = np.linalg.norm(q, axis=1, keepdims=True)
    scores = q / np.where(norms > 1e-12, norms, np.inf) @ w.T
    rows, columns = linear_sum_assignment(scores, maximize=True)
    permutation = found.permutation.numpy()
    assert sorted(permutation) == list(range(c)) and found.certified, found
    best = float(scores[rows, columns].sum())
    assert best - scores[np.arange(c), permutation].sum() <= 1e-6 * max(1.0, abs(best)), found
    return found.method


def main(first: int, end: int) -> None:
    for cost in ALL_EQUAL:
        check_all_equal(cost)
    seen: Counter[str] = Counter()
    for seed in range(first, end):
        rng = np.random.default_rng([seed, 3])
        seen[(check_means if rng.random() < 0.3 else check_matrix)(rng)] += 1
    print(dict(seen))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]), int(sys.argv[2]))
