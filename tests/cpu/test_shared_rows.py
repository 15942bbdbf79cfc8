"""Threads that share the rows of a pass: the same bits as one, errors and Ctrl-C in any of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import torch

from fastproto.cpu import shared_rows
from fastproto.cpu.gaussian_blocks import Blocks
from fastproto.cpu.gaussian_potential import gaussian_potential
from fastproto.cpu.hardware import Hardware
from fastproto.cpu.shared_rows import Turns, one_thread, share_rows, threads_of_a_pass
from fastproto.support.options import Precision

from ..helpers import unit_rows


@pytest.fixture(autouse=True)
def _one_thread_afterwards() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


@torch.no_grad()
def potential(w: torch.Tensor, precision: Precision) -> tuple[torch.Tensor, torch.Tensor]:
    return gaussian_potential(w, None, 2.0, None, None, precision, hardware=Hardware(bfloat16=True, integers=False))


@pytest.mark.parametrize(
    ("count", "dim", "dtype", "precision"),
    [
        (2500, 8, torch.float64, "highest"),
        (2500, 8, torch.float32, "highest"),
        (4100, 8, torch.float32, "highest"),  # transposed
        (2500, 96, torch.float32, "medium"),
        (2500, 96, torch.float32, "high"),
    ],
)
def test_threads_do_not_change_a_bit(count: int, dim: int, dtype: torch.dtype, precision: Precision) -> None:
    w = unit_rows(count, dim).to(dtype).requires_grad_()
    expected = potential(w, precision)
    for threads in (2, 5):
        torch.set_num_threads(threads)
        found = potential(w, precision)
        assert torch.get_num_threads() == threads
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_rows_are_begun_in_order_and_each_once() -> None:
    begun: list[int] = []
    share_rows(50, 4, Turns(50), lambda: begun.append)
    assert begun == sorted(begun) == list(range(50))


@pytest.mark.parametrize("error", [ValueError("of a row"), KeyboardInterrupt()])
def test_an_error_in_one_thread_ends_all(error: BaseException) -> None:
    turns, begun, ended = Turns(2), [], []

    def row(i: int) -> None:
        begun.append(i)
        try:
            if i == 1:
                raise error
            with turns.turn(1, 5):  # which never comes
                raise AssertionError
        finally:
            ended.append(i)

    torch.set_num_threads(2)
    with pytest.raises(type(error)) as caught:
        share_rows(2, 2, turns, lambda: row)
    assert caught.value is error and torch.get_num_threads() == 2
    assert sorted(begun) == sorted(ended) == [0, 1]  # none outlives the pass


def test_threads_are_kept_for_the_next_pass() -> None:
    both, running = threading.Barrier(2, timeout=60), []
    for _ in range(3):
        share_rows(2, 2, Turns(2), lambda: lambda _: running.append(both.wait()))
        running.append(threading.active_count())
    assert running[2] == running[5] == running[8]


# Python warns of a fork beside threads, which is what this is about
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
def test_a_forked_process_has_threads_of_its_own() -> None:
    points = unit_rows(60, 5)
    torch.set_num_threads(2)
    expected = gaussian_potential(points, None, 2.0, None, None, "highest", blocks=Blocks(side=13))
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        found = gaussian_potential(points, None, 2.0, None, None, "highest", blocks=Blocks(side=13))
        os._exit(0 if torch.equal(found[1], expected[1]) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_passes_keep_their_threads() -> None:
    torch.set_num_threads(3)
    with one_thread():
        assert (torch.get_num_threads(), threads_of_a_pass()) == (1, 3)
        with one_thread(passes=1):
            assert threads_of_a_pass() == 1
        assert threads_of_a_pass() == 3
    assert (torch.get_num_threads(), threads_of_a_pass()) == (3, 3)


@pytest.mark.parametrize("blocks", [Blocks(side=13), Blocks(transposed_from=0, transposed_side=13, inner=5)])
def test_a_pass_in_inference_mode(blocks: Blocks) -> None:
    torch.set_num_threads(3)
    points = unit_rows(60, 5)
    expected = gaussian_potential(points, None, 2.0, None, None, "highest", blocks=blocks)
    with torch.inference_mode():
        found = gaussian_potential(points.clone(), None, 2.0, None, None, "highest", blocks=blocks)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def test_the_rest_is_done_where_no_further_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    start, done = threading.Thread.start, []

    def start_one(thread: threading.Thread) -> None:
        if done:
            raise RuntimeError("can't start new thread")
        done.append(-1)
        start(thread)

    pool = shared_rows._Pool()
    monkeypatch.setattr(shared_rows, "_pool", lambda process: pool)
    monkeypatch.setattr(threading.Thread, "start", start_one)
    share_rows(100, 4, Turns(100), lambda: done.append)
    assert sorted(done) == list(range(-1, 100)) and pool.threads == 1


SCRIPT = """
import atexit, os, signal, sys, threading, torch
from fastproto.cpu.gaussian_blocks import Blocks
from fastproto.cpu.gaussian_potential import gaussian_potential
torch.set_num_threads(3)
points = torch.nn.functional.normalize(torch.randn(300, 5), dim=1)
def a_pass():
    return gaussian_potential(points, None, 2.0, None, None, "highest", blocks=Blocks(side=25))
"""


@pytest.mark.parametrize(
    "rest",
    [
        "atexit.register(lambda: (a_pass(), print('done')))",
        "atexit.register(a_pass); a_pass(); atexit.register(print, 'done')",
        """
main = threading.main_thread()
def late():
    main.join()
    torch.set_num_threads(3)
    a_pass()
    print('done')
threading.Thread(target=late).start()
""",
        """
start = threading.Thread.start
def interrupted(thread):
    start(thread)
    raise KeyboardInterrupt
threading.Thread.start = interrupted
try:
    a_pass()
except KeyboardInterrupt:
    print('done')
""",
        """
def interrupt(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
caught = 0
while caught < 300:
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-4 + 1e-5 * (caught % 200))
        while True:
            a_pass()
    except KeyboardInterrupt:
        caught += 1
print('done')
""",
    ],
    ids=["at exit", "at exit again", "after the main thread", "interrupted start", "many interrupts"],
)
def test_ends_of_a_process_and_interrupts(rest: str) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT + rest], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "done" in done.stdout, done.stderr
