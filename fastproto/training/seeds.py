"""The seeds of what is drawn at random inside of a run.

Every step begins from a seed of its own, so that a run that goes on from a checkpoint draws the same numbers as
one that never stopped. Seeds are mixed by the SeedSequence of NumPy, whose results are the same on every machine and in
every version: runs with neighbouring seeds, and the ranks and steps of one run, draw unrelated numbers.
"""

from __future__ import annotations

import numpy as np

_STEP, _FIRST_LOOK = 0, 1  # what a seed is for


def seed_of_step(seed: int, step: int, rank: int) -> int:
    """The seed of a training step on one rank, of a run with this seed: 0 <= ... < 2^64."""
    return _mixed(seed, _STEP, step, rank)


def seed_of_first_look(seed: int, batch: int) -> int:
    """The seed with which the untrained backbone sees a batch, before the first step."""
    return _mixed(seed, _FIRST_LOOK, batch, 0)


def _mixed(seed: int, purpose: int, number: int, rank: int) -> int:
    # Always four numbers: SeedSequence fills up with zeros, so (1, 2) and (1, 2, 0) would be the same.
    words = np.random.SeedSequence((seed, purpose, number, rank)).generate_state(1, np.uint64)
    return int(words[0])
