"""Runs a computation in a thread while training goes on, and stops it when the process exits."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import TypeVar

import torch

from fastproto.support.cancellation import STOP

T = TypeVar("T")

_running: dict[threading.Thread, threading.Event] = {}  # with the event that asks each to stop


def in_background(compute: Callable[[], T], device: torch.device) -> Future[T]:
    """``compute()`` in a thread; ``.done()`` asks, ``.result()`` waits for the value or raises its error.

    It runs on the backend that :func:`fastproto.backend.use_backend` names here. On a GPU the thread has a stream of
    its own, which begins after what is queued now: copies made before are ready. A process that exits asks the thread
    to stop and waits until it has ended: a search for an assignment ends within a block of scores or a step of its
    solver, another ``compute`` when it calls :func:`fastproto.support.cancellation.check_stop` or is done.
    """
    future: Future[T] = Future()
    stop, context = threading.Event(), copy_context()
    context.run(STOP.set, stop)
    stream = None
    if device.type == "cuda":
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))

    def run() -> None:
        try:
            with torch.cuda.stream(stream):  # None: no stream
                found = context.run(compute)
            if stream is not None:
                stream.synchronize()  # the value is there for any other stream
            future.set_result(found)
        except BaseException as error:
            future.set_exception(error)

    # A daemon: the interpreter waits for other threads before it calls what is registered at exit.
    thread = threading.Thread(target=run, name="fastproto-assignment", daemon=True)
    for ended in [other for other in list(_running) if other.ident is not None and not other.is_alive()]:
        _running.pop(ended, None)
    _running[thread] = stop
    thread.start()
    return future


def _stop_all() -> None:
    """Before the interpreter is taken down: a thread in compiled code would then abort the process."""
    for stop in list(_running.values()):
        stop.set()
    for thread in list(_running):
        while thread.is_alive():
            try:
                thread.join()
            except KeyboardInterrupt:
                continue  # it was asked to stop, and ends soon


atexit.register(_stop_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_running.clear)  # a child has none of these threads
