"""Threads that take turns at the rows of blocks of a pass, and each do the products of a block alone.

PyTorch's own threads share every product and wait for each other after it, spinning: beside another busy process that
takes longer than one thread alone. Here a thread waits asleep, and only for its turn to add.
"""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import torch

_THREADS: ContextVar[int | None] = ContextVar("threads", default=None)


def threads_of_a_pass() -> int:
    """How many threads a pass may use: as many as PyTorch does, also inside :func:`one_thread`."""
    return _THREADS.get() or torch.get_num_threads()


@contextlib.contextmanager
def one_thread(passes: int | None = None) -> Iterator[None]:
    """PyTorch uses one thread, but passes over all pairs as many as before, or as ``passes`` says."""
    threads = torch.get_num_threads()
    token = _THREADS.set(passes or threads_of_a_pass())
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _THREADS.reset(token)


class Turns:
    """The order in which terms are added to sums: that of one thread, so that the bits do not depend on the threads."""

    def __init__(self, sums: int) -> None:
        self.next = [0] * sums  # the term that each sum waits for
        self.lock = threading.RLock()  # "with" of the condition itself could leave it locked at a Ctrl-C
        self.changed = threading.Condition(self.lock)
        self.error: BaseException | None = None

    @contextlib.contextmanager
    def turn(self, which: int, term: int) -> Iterator[None]:
        """Waits until all earlier terms of that sum have been added."""
        with self.lock:
            self.changed.wait_for(lambda: self.error is not None or self.next[which] == term)
            if self.error is not None:
                raise RuntimeError("another thread of this pass failed") from self.error
        yield
        with self.lock:
            self.next[which] += 1
            self.changed.notify_all()

    def fail(self, error: BaseException) -> None:
        with self.lock:
            self.error = self.error or error
            self.changed.notify_all()


class _Task:
    """The part of one thread in a pass. Locks alone: an Event, too, could stay locked at a Ctrl-C."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.work, self.over = work, False
        self.unclaimed, self.ended = threading.Lock(), threading.Lock()
        self.ended.acquire()

    def claim(self) -> bool:
        """True for the first caller alone: a thread that does it, or the pass that needs it no longer."""
        return self.unclaimed.acquire(blocking=False)

    def do(self) -> None:
        if self.claim():
            try:
                self.work()
            finally:
                del self.work  # before the pass ends: a thread that frees tensors while Python exits can crash
                self.over = True
                self.ended.release()


class _Pool:
    """Threads that outlive a pass: a new one takes milliseconds for its first product. They end with the process."""

    def __init__(self) -> None:
        self.tasks: queue.SimpleQueue[_Task] = queue.SimpleQueue()
        self.threads = 0

    def begin(self, tasks: list[_Task]) -> None:
        with contextlib.suppress(RuntimeError):  # no further thread can be started: those that there are do it
            while self.threads < len(tasks):
                threading.Thread(target=self._serve, daemon=True).start()
                self.threads += 1
        for task in tasks:
            self.tasks.put(task)

    def _serve(self) -> None:
        while True:
            self.tasks.get().do()


@functools.cache
def _pool(process: int) -> _Pool:
    """A forked process has none of its parent's threads."""
    return _Pool()


def share_rows(rows: int, threads: int, turns: Turns, worker: Callable[[], Callable[[int], None]]) -> None:
    """Calls ``worker()(i)`` for i = 0, 1, ... in this order, on so many threads, each with a worker of its own.

    An error or Ctrl-C in one of them ends all, and is raised.
    """
    waiting = iter(range(rows))  # next() of it is atomic
    inference = torch.is_inference_mode_enabled()  # modes are of a thread: its tensors can be written in no other mode

    def work() -> None:
        try:
            torch.set_num_threads(1)  # of this thread
            with torch.inference_mode(inference), torch.no_grad(), torch.autocast("cpu", enabled=False):
                do = worker()
                for i in waiting:
                    if turns.error is not None:
                        return
                    do(i)
        except BaseException as error:
            turns.fail(error)

    others = [_Task(work) for _ in range(min(threads, rows) - 1)]
    with one_thread(passes=1):
        try:
            _pool(os.getpid()).begin(others)
            work()
        except BaseException as error:  # Ctrl-C
            turns.fail(error)
        finally:
            _join(others, turns)
    if turns.error is not None:
        raise turns.error


def _join(others: list[_Task], turns: Turns) -> None:
    """Also on Ctrl-C: it ends them soon, and none of them may outlive the sums."""
    for other in others:
        if other.claim():  # no thread has begun it
            del other.work
            continue
        while not other.over:
            try:
                other.ended.acquire()
            except KeyboardInterrupt as error:
                turns.fail(error)
