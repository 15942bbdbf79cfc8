"""The processes of a run on several devices, and Ctrl-C inside of Lightning."""

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
    """A rank that another process has started ends with it, also where no command but a script called ``fit``."""
    stopping.done = False
    if RANKS in os.environ:
        stopping.watch()


def start_ranks(trainer: L.Trainer) -> None:
    """Start the other processes of this machine, unless torchrun, SLURM, MPI or the user has started them.

    Lightning would start them with the same command lines; but where one of them dies it kills this process within five
    seconds, before a word could be said, and where this one dies the others stay.
    """
    # Lightning answers SIGTERM with a broadcast in the middle of whatever collective is under way: that aborts.
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
    """Ctrl-C is a KeyboardInterrupt that names the run's folder.

    Lightning answers it with SystemExit and leaves further ones ignored for good.
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
