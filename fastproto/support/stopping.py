"""How a command ends early: one sentence on standard error, its exit code, and no process left.

Files are written whole or not at all and a run goes on from its last checkpoint, so nothing has to be unwound: on
SIGINT and SIGTERM a thread says the sentence, ends the processes that were started here and ends this one. A thread,
because Python's own signal handlers wait while the main thread is inside a collective, an import or a solver. The same
thread looks whether another rank has died.
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

RANKS = "FASTPROTO_RANKS"  # environment variable: what rank 0 tells the ranks it has started
LOOK_EVERY = 0.2  # seconds between two looks at the other ranks
GRACE = 1.5  # seconds in which another rank may say why all end, before this one does
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
Explain = Callable[[BaseException], "tuple[int, str]"]


class Stopping:
    """What this process knows about its run and the other ranks; one object for each process, :data:`stopping`."""

    def __init__(self) -> None:
        self.folder: Path | None = None  # of the run, once it is claimed
        self.children: list[subprocess.Popen[bytes]] = []  # ranks 1, 2, ... of this machine
        self.explain: Explain | None = None  # exit code and text of an error
        self.parent: int | None = None  # process whose end ends this one
        self.follows = False  # whether the parent is a rank 0 that speaks for this process
        self.token: tuple[int, int] | None = None  # pipe with one byte: the rank that takes it may speak
        self.done = False  # ranks end each by itself from here on
        self._ending = threading.Lock()  # taken once, never released
        self._wake: tuple[int, int] | None = None

    # --- beginning ----------------------------------------------------------------------------------------------------

    def watch(self, signals: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM)) -> None:
        """End on these signals and when a rank is lost, until the process ends; outside the main thread do nothing.

        A signal that is ignored (``nohup``, a background job) stays ignored.
        """
        if os.name != "posix" or threading.current_thread() is not threading.main_thread():
            return
        self._meet_rank_0()
        if self._wake is None:
            self._wake = os.pipe()
            for descriptor in self._wake:
                os.set_blocking(descriptor, False)
            os.register_at_fork(after_in_child=self._forked)
            atexit.register(_ignore, signals)
            threading.Thread(target=self._look, name="fastproto-stopping", daemon=True).start()
        signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        for number in signals:
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                signal.signal(number, _nothing)

    def _meet_rank_0(self) -> None:
        """A rank that was started by another process ends with that process."""
        told = os.environ.get(RANKS)
        if told is not None and self.parent is None and int(os.environ.get("LOCAL_RANK", "0")) > 0:
            facts = json.loads(told)
            self.parent, self.token, self.follows = facts["pid"], (facts["token"], -1), True
            self.folder = None if facts["folder"] is None else Path(facts["folder"])
        elif "TORCHELASTIC_RUN_ID" in os.environ and self.parent is None:
            self.parent = os.getppid()

    def start_ranks(self, count: int) -> None:
        """Start ``count`` more processes with this one's command line; LOCAL_RANK = 1, 2, ... in their environment."""
        self.token = os.pipe()
        os.set_blocking(self.token[0], False)
        os.write(self.token[1], b".")
        folder = None if self.folder is None else str(self.folder)
        told = json.dumps({"pid": os.getpid(), "token": self.token[0], "folder": folder})
        for rank in range(1, count + 1):
            environment = os.environ | {"LOCAL_RANK": str(rank), RANKS: told}
            child = subprocess.Popen(own_command(), env=environment, pass_fds=(self.token[0],))
            self.children.append(child)

    def _forked(self) -> None:
        """A data loader's process: its parent's signals are not its own, and Ctrl-C is its parent's to answer."""
        signal.set_wakeup_fd(-1)
        with contextlib.suppress(ValueError):  # not in the main thread
            for number, action in ((signal.SIGINT, signal.SIG_IGN), (signal.SIGTERM, signal.SIG_DFL)):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, action)

    # --- watching -----------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        assert self._wake is not None
        while True:
            watches = self.children or self.parent is not None
            # a child is started while this waits: so there is always a limit
            select.select([self._wake[0]], [], [], LOOK_EVERY if watches else 1.0)
            with contextlib.suppress(BlockingIOError):
                for number in os.read(self._wake[0], 64):
                    if number in WORDS:
                        self._stopped_by(signal.Signals(number))
            if not self.done:
                self._look_at_ranks()

    def _stopped_by(self, number: signal.Signals) -> None:
        if self.follows:
            if self._parent_lives():
                time.sleep(GRACE)  # rank 0 has had the same signal, says so and ends this process
            if self._parent_lives():
                self.end(ended_by(number), None)  # rank 0 sees it and says why
            self._look_at_ranks()
        self.end(ended_by(number), self._with_advice(WORDS[number]) if self._speaks() else None)

    def _look_at_ranks(self) -> None:
        for rank, child in enumerate(self.children, 1):
            code = child.poll()
            if code:
                self._lost(rank, code)
        if self.parent is not None and not self._parent_lives():
            who = "rank 0" if self.follows else "the process that started the ranks"
            self.end(UNEXPECTED, self._with_advice(f"{who} has ended, and with it the run") if self._speaks() else None)

    def _lost(self, rank: int, code: int) -> NoReturn:
        """A rank that ended with a sentence of its own has taken the token: then this one is not said."""
        number = -code if code < 0 else code - 128
        try:
            how = f"was ended by {signal.Signals(number).name}"
        except ValueError:
            how = f"ended with code {code}"
        self.end(code if code > 0 else ended_by(number), self._with_advice(f"rank {rank} {how}, and with it the run"))

    def _parent_lives(self) -> bool:
        return os.getppid() == self.parent

    def _speaks(self) -> bool:
        """Ranks that another launcher has started all hear of a signal: rank 0 speaks."""
        return self.follows or int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))) == 0

    def _with_advice(self, what: str) -> str:
        advice = how_to_go_on(self.folder)
        return f"{what}; {advice}" if advice else what

    # --- ending -------------------------------------------------------------------------------------------------------

    @property
    def several(self) -> bool:
        """Whether there are other ranks that would wait for this one for ever."""
        return bool(self.children) or self.parent is not None

    def fail(self, error: BaseException) -> None:
        """End all ranks for an error of this one; return where it can be raised: no other rank waits for this one.

        An error of torch may only say that another rank is gone: the thread is given the time to see it first.
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
        """The ranks are done with each other; wait for those that were started here, at most so many seconds."""
        self.done = True
        if wait > 0:
            until = time.monotonic() + wait
            with contextlib.suppress(subprocess.TimeoutExpired):
                for child in self.children:
                    child.wait(max(until - time.monotonic(), 0.01))
            self.kill_children()

    def end(self, code: int, sentence: str | None) -> NoReturn:
        """Say the sentence unless another rank has spoken, end what was started here, and end this process."""
        if not self._ending.acquire(blocking=False):
            while True:  # another thread is about to end the process
                time.sleep(60)
        if sentence is not None and self._may_speak():
            say(sentence)
        workers = sys.modules.get("multiprocessing")  # imported where there are any; another thread may be importing
        for worker in workers.active_children() if workers is not None else []:
            worker.kill()
        self.kill_children()
        remove_own_temporaries()
        os._exit(code)

    def _may_speak(self) -> bool:
        if self.token is None:
            return True
        with contextlib.suppress(OSError):
            return os.read(self.token[0], 1) == b"."
        return False


def keep_handler(register: Callable[[], None]) -> Callable[[], None]:
    """``register`` without its handler of SIGTERM, where that signal is watched here."""

    def registered() -> None:
        handler = signal.getsignal(signal.SIGTERM)
        register()
        if handler is _nothing and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)

    return registered


def _ignore(signals: Sequence[signal.Signals]) -> None:
    """The last word is said: Python would give these signals back their defaults while it takes itself apart."""
    for number in signals:
        if signal.getsignal(number) is _nothing:
            signal.signal(number, signal.SIG_IGN)


def _nothing(number: int, frame: object) -> None:
    """A handler that only makes Python write the signal's number into the wake-up pipe."""


def say(sentence: str) -> None:
    """A line on standard error, past Python's buffers and locks; nothing where it is closed."""
    with contextlib.suppress(OSError):
        os.write(2, f"{sentence}\n".encode(errors="replace"))


def has_checkpoint(folder: Path) -> bool:
    return any((folder / "checkpoints" / name).exists() for name in ("last.ckpt", "best.ckpt"))


def how_to_go_on(folder: str | os.PathLike[str] | None) -> str | None:
    """``go on with --resume RUN`` where the run has a checkpoint."""
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
