"""Early end of a command: one sentence on standard error, an exit code, and no process left behind.

Files are written atomically and a run can continue from its last checkpoint, so that nothing needs unwinding: on SIGINT
and SIGTERM a thread prints the sentence, ends the processes that this one has started, and ends this process. It is a
thread because Python's signal handlers wait while the main thread is in a collective, an import or a solver. The same
thread checks whether another rank has died.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import shlex
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from fastproto.support.atomic_files import remove_own_temporaries
from fastproto.support.exit_codes import UNEXPECTED, ended_by

RANKS = "FASTPROTO_RANKS"  # environment variable through which rank 0 passes facts to the ranks that it starts
POLL_SECONDS = 0.2  # seconds between two checks of the other ranks
GRACE = 1.5  # seconds that another rank has to report the cause, before this one ends
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
Explain = Callable[[BaseException], "tuple[int, str]"]


class Stopping:
    """What this process knows about its run and the other ranks; one object per process, :data:`stopping`."""

    def __init__(self) -> None:
        self.folder: Path | None = None  # of the run, once it is claimed
        self.children: list[subprocess.Popen[bytes]] = []  # ranks 1, 2, ... of this machine
        self.explain: Explain | None = None  # exit code and text of an error
        self.parent: int | None = None  # process whose end ends this one
        self.follows = False  # whether the parent is rank 0, which reports for this process
        self.token: tuple[int, int] | None = None  # pipe with one byte: only the rank that reads it prints a sentence
        self.done = False  # from here on each rank ends by itself
        self._ending = threading.Lock()  # taken once, never released
        self._wake: tuple[int, int] | None = None

    # --- start ----------------------------------------------------------------------------------------------------

    def watch(self, signals: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM)) -> None:
        """From now on, end on these signals and when a rank is lost; do nothing outside the main thread.

        A signal that is ignored (``nohup``, a background job) stays ignored.
        """
        if os.name != "posix" or threading.current_thread() is not threading.main_thread():
            return
        self._find_parent()
        if self._wake is None:
            self._wake = os.pipe()
            for descriptor in self._wake:
                os.set_blocking(descriptor, False)
            os.register_at_fork(after_in_child=self._reset_signals)
            atexit.register(_ignore_signals, signals)
            threading.Thread(target=self._poll, name="fastproto-stopping", daemon=True).start()
        signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        for number in signals:
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                signal.signal(number, _no_op)

    def _find_parent(self) -> None:
        """Find the process that started this rank; the rank ends with it."""
        told = os.environ.get(RANKS)
        if told is not None and self.parent is None and int(os.environ.get("LOCAL_RANK", "0")) > 0:
            facts = json.loads(told)
            self.parent, self.token, self.follows = facts["pid"], (facts["token"], -1), True
            self.folder = None if facts["folder"] is None else Path(facts["folder"])
        elif "TORCHELASTIC_RUN_ID" in os.environ and self.parent is None:
            self.parent = os.getppid()

    def start_ranks(self, count: int) -> None:
        """Start ``count`` processes with the command line of this one, and LOCAL_RANK = 1, 2, ... set."""
        self.token = os.pipe()
        os.set_blocking(self.token[0], False)
        os.write(self.token[1], b".")
        folder = None if self.folder is None else str(self.folder)
        told = json.dumps({"pid": os.getpid(), "token": self.token[0], "folder": folder})
        for rank in range(1, count + 1):
            environment = os.environ | {"LOCAL_RANK": str(rank), RANKS: told}
            child = subprocess.Popen(own_command(), env=environment, pass_fds=(self.token[0],))
            self.children.append(child)

    def _reset_signals(self) -> None:
        """Reset the signals in a forked process, such as a data loader's; Ctrl-C is left to its parent."""
        signal.set_wakeup_fd(-1)
        with contextlib.suppress(ValueError):  # not in the main thread
            for number, action in ((signal.SIGINT, signal.SIG_IGN), (signal.SIGTERM, signal.SIG_DFL)):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, action)

    # --- watching -----------------------------------------------------------------------------------------------------

    def _poll(self) -> None:
        assert self._wake is not None
        while True:
            watches = self.children or self.parent is not None
            # always with a timeout: a child may be started during the wait
            select.select([self._wake[0]], [], [], POLL_SECONDS if watches else 1.0)
            with contextlib.suppress(BlockingIOError):
                for number in os.read(self._wake[0], 64):
                    if number in WORDS:
                        self._end_on_signal(signal.Signals(number))
            if not self.done:
                self._check_ranks()

    def _end_on_signal(self, number: signal.Signals) -> None:
        if self.follows:
            if self._parent_is_alive():
                time.sleep(GRACE)  # rank 0 has received the same signal, reports it and ends this process
            if self._parent_is_alive():
                self.end(ended_by(number), None)  # rank 0 notices and reports it
            self._check_ranks()
        self.end(ended_by(number), self._with_advice(WORDS[number]) if self._reports() else None)

    def _check_ranks(self) -> None:
        for rank, child in enumerate(self.children, 1):
            code = child.poll()
            if code:
                self._end_for_rank(rank, code)
        if self.parent is not None and not self._parent_is_alive():
            who = "rank 0" if self.follows else "the process that started the ranks"
            self.end(
                UNEXPECTED, self._with_advice(f"{who} has ended, and with it the run") if self._reports() else None
            )

    def _end_for_rank(self, rank: int, code: int) -> NoReturn:
        """End because a rank has died; nothing is printed if that rank took the token for a sentence of its own."""
        number = -code if code < 0 else code - 128
        try:
            how = f"was ended by {signal.Signals(number).name}"
        except ValueError:
            how = f"ended with code {code}"
        self.end(code if code > 0 else ended_by(number), self._with_advice(f"rank {rank} {how}, and with it the run"))

    def _parent_is_alive(self) -> bool:
        return os.getppid() == self.parent

    def _reports(self) -> bool:
        """Whether this rank reports: another launcher signals all of its ranks, and of these only rank 0 reports."""
        return self.follows or int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))) == 0

    def _with_advice(self, what: str) -> str:
        advice = how_to_go_on(self.folder)
        return f"{what}; {advice}" if advice else what

    # --- ending -------------------------------------------------------------------------------------------------------

    @property
    def several(self) -> bool:
        """Whether there are other ranks, which would wait for this one forever."""
        return bool(self.children) or self.parent is not None

    def fail(self, error: BaseException) -> None:
        """End all ranks because of an error of this one; return if no other rank waits: the error can then be raised.

        An error of torch may only be a consequence of a lost rank: the thread gets the time to notice that first.
        """
        if self._ending.locked():
            self.end(UNEXPECTED, None)  # waits for the thread that ends the process
        if not self.several or self.done:
            return
        if isinstance(error, RuntimeError) or getattr(error, "of_another_rank", False):
            time.sleep(2 * GRACE)
        if self.explain is not None:
            self.end(*self.explain(error))
        if self.follows:
            self.end(UNEXPECTED, "".join(traceback.format_exception(error)).rstrip())
        self.kill_children()

    def kill_children(self) -> None:
        """End the ranks that were started here; this process goes on."""
        children, self.children = self.children, []
        for child in children:
            child.kill()
        for child in children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(5)

    def finish(self, *, wait: float = 0.0) -> None:
        """Let each rank end by itself; wait at most ``wait`` seconds for those started here, then kill them."""
        self.done = True
        if wait > 0:
            until = time.monotonic() + wait
            with contextlib.suppress(subprocess.TimeoutExpired):
                for child in self.children:
                    child.wait(max(until - time.monotonic(), 0.01))
            self.kill_children()

    def end(self, code: int, sentence: str | None) -> NoReturn:
        """Print the sentence unless another rank has printed one, kill the processes started here, end this process."""
        if not self._ending.acquire(blocking=False):
            while True:  # another thread is about to end the process
                time.sleep(60)
        if sentence is not None and self._take_token():
            say(sentence)
        workers = sys.modules.get("multiprocessing")  # imported if there are any; an import here could block
        for worker in workers.active_children() if workers is not None else []:
            worker.kill()
        self.kill_children()
        remove_own_temporaries()
        os._exit(code)

    def _take_token(self) -> bool:
        if self.token is None:
            return True
        with contextlib.suppress(OSError):
            return os.read(self.token[0], 1) == b"."
        return False


def keep_handler(register: Callable[[], None]) -> Callable[[], None]:
    """Wrap ``register`` so that it keeps our handler of SIGTERM, if that signal is watched."""

    def registered() -> None:
        handler = signal.getsignal(signal.SIGTERM)
        register()
        if handler is _no_op and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)

    return registered


def _ignore_signals(signals: Sequence[signal.Signals]) -> None:
    """Ignore these signals at exit: Python would restore their default handlers during its shutdown."""
    for number in signals:
        if signal.getsignal(number) is _no_op:
            signal.signal(number, signal.SIG_IGN)


def _no_op(number: int, frame: object) -> None:
    """A handler that only makes Python write the signal's number into the wake-up pipe."""


def say(sentence: str) -> None:
    """Write a line to standard error, past Python's buffers and locks; do nothing if it is closed."""
    with contextlib.suppress(OSError):
        os.write(2, f"{sentence}\n".encode(errors="replace"))


def has_checkpoint(folder: Path) -> bool:
    return any((folder / "checkpoints" / name).exists() for name in ("last.ckpt", "best.ckpt"))


def how_to_go_on(folder: str | os.PathLike[str] | None) -> str | None:
    """The advice ``go on with --resume RUN`` if the run has a checkpoint, otherwise None."""
    if folder is not None and str(folder) and has_checkpoint(Path(folder)):
        return f"go on with --resume {shlex.quote(str(folder))}"
    return None


def own_command() -> list[str]:
    """The command line that started this process: a script, ``-m``, ``-c`` or a console script."""
    arguments = sys.argv[1:]
    original = sys.orig_argv[1:]
    if original[len(original) - len(arguments) :] == arguments and len(original) > len(arguments):
        return [sys.executable, *original]
    return [sys.executable, os.path.abspath(sys.argv[0]), *arguments]


stopping = Stopping()
