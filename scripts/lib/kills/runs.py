"""Training runs in processes that can be killed."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from lib.kills.leftovers import differences, messages

EPOCHS = 4
BEGIN = [
    *("--out", "run", "--progress", "false", "--accelerator", "cpu", "--model", "mlp"),
    *("--optim.epochs", str(EPOCHS), "--head.dim", "3", "--head.renewals_per_epoch", "2"),
    *("--head.initial_assignment", "aligned", "--head.save_class_means", "true"),
]
RESUME = ["--resume", "run", "--progress", "false"]
COMMAND = "import sys; from fastproto.cli import train; sys.exit(train())"
PATIENCE = 180.0  # seconds for any run to end
FORKS = multiprocessing.get_context("forkserver")


_begun: list[BaseProcess | subprocess.Popen[bytes]] = []
_ended, _lock = threading.Event(), threading.Lock()


class Ended(Exception):
    """Raised instead of starting a run once ``end_all`` was called."""


class Mark(NamedTuple):
    """The condition for a kill: at least ``least`` files of a pattern in the run folder."""

    pattern: str
    least: int = 1


class Undisturbed(NamedTuple):
    """The folder of the undisturbed run, and the seconds of such a run without and with its imports."""

    folder: Path
    seconds: float
    seconds_with_imports: float


def _train(folder: str, arguments: list[str]) -> None:
    os.chdir(folder)
    for name, number in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666), number)
    os.setsid()
    sys.argv = ["fastproto-train", *arguments]
    from fastproto.cli import train

    code = train()
    sys.stdout.flush()
    os._exit(code)


def forked(folder: Path, arguments: list[str]) -> BaseProcess:
    """Starts a run in a forked process that has its imports already."""
    process = FORKS.Process(target=_train, args=(str(folder), arguments))
    with _lock:
        if _ended.is_set():
            raise Ended
        process.start()
        _begun.append(process)
    return process


def started(folder: Path, arguments: list[str]) -> subprocess.Popen[bytes]:
    """Starts a run as a command, in its own session."""
    with (folder / "stdout").open("ab") as out, (folder / "stderr").open("ab") as error:
        command = [sys.executable, "-c", COMMAND, *arguments]
        with _lock:
            if _ended.is_set():
                raise Ended
            process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=error, start_new_session=True)
            _begun.append(process)
    return process


def end_all() -> None:
    """Kills every run that has begun, with its ranks; no run begins after this."""
    with _lock:
        _ended.set()
        for process in _begun:
            code = process.exitcode if isinstance(process, BaseProcess) else process.poll()
            if code is None and process.pid is not None:
                with contextlib.suppress(OSError):  # a process that has just begun has no session yet
                    os.killpg(process.pid, signal.SIGKILL)
                process.kill()


def next_arguments(folder: Path) -> list[str]:
    """The arguments that a user would give: --resume, or the same command if nothing was written yet."""
    return RESUME if (folder / "run" / "config.yaml").is_file() else BEGIN


def finish(folder: Path, whole: Path) -> list[str]:
    """Resumes a run to its end; returns its differences from the undisturbed run."""
    arguments = next_arguments(folder)
    process = forked(folder, arguments)
    process.join(PATIENCE)
    if process.exitcode != 0:
        return [f"{arguments[:2]} ended with {process.exitcode}: {messages(folder)[-300:]}"]
    return differences(folder / "run", whole)


def undisturbed(folder: Path) -> Undisturbed:
    seconds = []
    for name in ("first", "second", "third"):  # the first compiles, the third imports
        (folder / name).mkdir()
        start = time.monotonic()
        if name == "third":
            started(folder / name, BEGIN).wait(PATIENCE)
        else:
            forked(folder / name, BEGIN).join(PATIENCE)
        seconds.append(time.monotonic() - start)
        if not (folder / name / "run" / "curves.png").exists():
            sys.exit(f"an undisturbed run failed: {messages(folder / name) or 'no message'}")
        found = differences(folder / name / "run", folder / "first" / "run")
        if found:
            sys.exit(f"undisturbed runs differ: {'; '.join(found)}")
    return Undisturbed(folder / "first" / "run", seconds[1], seconds[2])


# --- waiting ---------------------------------------------------------------------------------------------------------


def wait_for_mark(folder: Path, mark: Mark, ended: Callable[[], bool]) -> None:
    while not ended():
        if len(list((folder / "run").glob(mark.pattern))) >= mark.least:
            return
        time.sleep(0.0005)


def wait_until_begun(process: subprocess.Popen[bytes]) -> None:
    """Waits until the command handles SIGTERM itself; before that, Python is starting."""
    while process.poll() is None:
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:") and int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
                return
        time.sleep(0.001)


def wait_until(moment: float, process: subprocess.Popen[bytes]) -> None:
    """Waits until the moment or the end of the process, whichever comes first."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(max(moment - time.monotonic(), 0.001))


def session(leader: int) -> list[int]:
    """The live processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            rest = stat.read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        if int(rest[3]) == leader and rest[0] != "Z":
            found.append(int(stat.parent.name))
    return sorted(found)
