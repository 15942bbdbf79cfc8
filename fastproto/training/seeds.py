"""Seeds of the random numbers inside a run.

Every step sets its own seed, so that a resumed run draws the same numbers as an uninterrupted one. NumPy's SeedSequence
mixes the seeds, with the same result on every machine and in every version: runs with neighbouring seeds, and the ranks
and steps of one run, draw unrelated numbers.
"""

from __future__ import annotations

import numpy as np

_STEP, _FIRST_LOOK = 0, 1  # purposes of seeds


def seed_of_step(seed: int, step: int, rank: int) -> int:
    """The seed of a training step on one rank, in [0, 2^64); ``seed`` is that of the run."""
    return _mixed(seed, _STEP, step, rank)


def seed_of_first_look(seed: int, batch: int) -> int:
    """The seed of the forward pass of a batch through the untrained backbone, before the first step."""
    return _mixed(seed, _FIRST_LOOK, batch, 0)


def _mixed(seed: int, purpose: int, number: int, rank: int) -> int:
    # Always four numbers: SeedSequence pads with zeros, so (1, 2) and (1, 2, 0) would be the same.
    words = np.random.SeedSequence((seed, purpose, number, rank)).generate_state(1, np.uint64)
    return int(words[0])
