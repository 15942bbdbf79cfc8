"""A request to stop that a background thread sees: long loops call :func:`check_stop` between their steps."""

from __future__ import annotations

import threading
from contextvars import ContextVar


class Stopped(Exception):
    """Ends a computation whose result nobody will use."""


STOP: ContextVar[threading.Event | None] = ContextVar("fastproto_stop", default=None)


def check_stop() -> None:
    """Raise :class:`Stopped` if this thread was asked to stop; nothing in a thread that has no such request."""
    event = STOP.get()
    if event is not None and event.is_set():
        raise Stopped("the process is about to exit")
