"""Threads that share the rows of blocks of a pass: the modes of the caller, and errors."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from fastproto.cpu.gaussian_blocks import Blocks
from fastproto.cpu.gaussian_potential import gaussian_potential
from fastproto.cpu.shared_rows import Turns, share_rows

from ..helpers import unit_rows


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("blocks", [Blocks(side=13), Blocks(transposed_from=0, transposed_side=13, inner=5)])
def test_a_pass_in_inference_mode(blocks: Blocks) -> None:
    points = unit_rows(60, 5)
    expected = gaussian_potential(points, None, 2.0, None, None, "highest", blocks=blocks)
    with torch.inference_mode():
        found = gaussian_potential(points.clone(), None, 2.0, None, None, "highest", blocks=blocks)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def test_a_thread_that_cannot_be_started_ends_the_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    start, done, entered = threading.Thread.start, [], threading.Event()

    def start_one(thread: threading.Thread) -> None:
        if entered.is_set():
            raise RuntimeError("can't start new thread")
        entered.set()
        start(thread)

    turns = Turns(1000)

    def row(i: int) -> None:
        with turns.turn(i, 0):  # waits or fails as soon as the pass has failed
            done.append(i)
            threading.Event().wait(0.01)

    monkeypatch.setattr(threading.Thread, "start", start_one)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        share_rows(1000, 3, turns, lambda: row)
    assert len(done) < 1000
