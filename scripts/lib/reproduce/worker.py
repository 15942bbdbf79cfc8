"""One cell's process: fastproto-train, which ends with the process that has started it."""

from __future__ import annotations

import os
import signal
import sys
import threading


def main(arguments: list[str]) -> int:
    """Train. Standard input is a pipe that nobody writes to: its end is the end of the process behind it."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.argv = ["fastproto-train", *arguments]
    from fastproto.cli import train

    return train()


def _end_with_parent() -> None:
    """Not ``sys.stdin``: a thread that reads from it holds a lock that Python needs at its end."""
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)
