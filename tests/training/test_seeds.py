"""The seeds of steps: fixed values, and none twice."""

from __future__ import annotations

import itertools

import torch

from fastproto.training.seeds import seed_of_first_look, seed_of_step


def test_seeds_are_the_same_on_every_machine() -> None:
    assert seed_of_step(0, 0, 0) == 15793235383387715774
    assert seed_of_step(0, 1, 0) == 8649202198168436674
    assert seed_of_step(1, 0, 0) == 7434755675892716031
    assert seed_of_step(0, 0, 1) == 16814875612303392341
    assert seed_of_step(2**32 - 1, 10**6, 7) == 17043521174073721667
    assert [seed_of_first_look(0, batch) for batch in (0, 1)] == [5836529245451711556, 3108398236813484367]


def test_no_two_steps_draw_the_same() -> None:
    steps = [seed_of_step(*which) for which in itertools.product(range(8), range(64), range(4))]
    looks = [seed_of_first_look(*which) for which in itertools.product(range(8), range(64))]
    assert len({*steps, *looks}) == len(steps) + len(looks)
    first = [torch.rand(1, generator=torch.Generator().manual_seed(seed)).item() for seed in steps[:256]]
    assert len(set(first)) == len(first) and abs(sum(first) / len(first) - 0.5) < 0.1
