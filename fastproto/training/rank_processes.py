"""Starts the processes of a run on several devices, and handles Ctrl-C inside Lightning."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import lightning as L

from fastproto.support.stopping import RANKS, keep_handler, stopping


def follow_rank_0() -> None:
    """End a rank together with the process that started it, also if a script and not a command called ``fit``."""
    stopping.done = False
    if RANKS in os.environ:
        stopping.watch()


def start_ranks(trainer: L.Trainer) -> None:
    """Start the other processes of this machine, unless torchrun, SLURM, MPI or the user has started them.

    Lightning could start them, too. But if one of them dies, it kills this process within five seconds, before an error
    can be reported; and if this process dies, the others stay.
    """
    # Lightning answers SIGTERM with a broadcast, which aborts if another collective is in progress.
    connector = trainer._signal_connector
    setattr(connector, "register_signal_handlers", keep_handler(connector.register_signal_handlers))  # noqa: B010
    strategy = trainer.strategy
    environment = getattr(strategy, "cluster_environment", None)
    if environment is None or environment.creates_processes_externally or hasattr(sys, "ps1"):
        return
    count: int = getattr(strategy, "num_processes", 1)
    os.environ |= {
        "MASTER_ADDR": environment.main_address,
        "MASTER_PORT": str(environment.main_port),
        "NODE_RANK": str(environment.node_rank()),
        "LOCAL_RANK": str(environment.local_rank()),
        "WORLD_SIZE": str(count * trainer.num_nodes),
    }
    stopping.watch((signal.SIGTERM,))
    stopping.start_ranks(count - 1)


@contextmanager
def interruptible(folder: Path) -> Iterator[None]:
    """Raise KeyboardInterrupt on Ctrl-C, with the run folder as its message.

    Lightning would raise SystemExit and ignore every further Ctrl-C.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        if threading.current_thread() is threading.main_thread():
            with suppress(TypeError):  # a handler that was not installed from Python
                signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt(str(folder)) from stop
    except BaseException as error:
        stopping.fail(error)
        raise
