"""How a command ends early: signals, lost ranks, errors. The processes here import neither torch nor Lightning."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ALONE = """
import sys, time
from pathlib import Path
from fastproto.support.stopping import stopping
stopping.watch()
stopping.folder = Path(sys.argv[1])
print("begun", flush=True)
time.sleep(60)
"""
RANKS = """
import os, sys, time
from fastproto.support.stopping import stopping
stopping.watch()
stopping.explain = lambda error: (2, f"error: {error}")
rank = int(os.environ.get("LOCAL_RANK", "0"))
if rank == 0:
    stopping.start_ranks(2)
os.write(1, f"{rank} {os.getpid()}\\n".encode())  # in one piece: others write there too
if sys.argv[1:] == [str(rank)]:
    stopping.fail(ValueError("a bad batch"))
time.sleep(60)
"""
KILLED = ", and with it the run\n"


def begin(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_a_signal_ends_with_a_sentence_and_its_code(number: signal.Signals, word: str, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for resumable in (False, True):
        if resumable:
            (tmp_path / "checkpoints" / "last.ckpt").touch()
        process = begin(ALONE, str(tmp_path))
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        for _ in range(1 + resumable):  # once and twice
            process.send_signal(number)
        error = process.communicate(timeout=30)[1]
        assert process.returncode == 128 + number
        assert error == word + (f"; go on with --resume {tmp_path}\n" if resumable else "\n")


def test_a_signal_after_the_last_word_changes_nothing() -> None:
    code = """
import atexit, os, signal
from fastproto.support.stopping import stopping
def late():
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    os.write(1, b"late")
atexit.register(late)  # what is registered first comes last
stopping.watch()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "late", "")


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_rank_that_ends_ends_all_with_one_sentence(number: signal.Signals, rank: int) -> None:
    process = begin(RANKS)
    assert process.stdout is not None
    pids = dict(map(int, process.stdout.readline().split()) for _ in range(3))
    assert pids[0] == process.pid
    os.kill(pids[rank], number)
    error = process.communicate(timeout=30)[1]  # comes to an end when the last process has closed standard error
    assert process.returncode == (-number if (number, rank) == (signal.SIGKILL, 0) else 128 + number)
    if rank == 0:
        assert error == ("terminated\n" if number == signal.SIGTERM else f"rank 0 has ended{KILLED}")
    else:
        assert error == f"rank {rank} was ended by {number.name}{KILLED}"


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_of_one_rank_ends_all_with_its_sentence(rank: int) -> None:
    process = begin(RANKS, str(rank))
    error = process.communicate(timeout=30)[1]
    assert (process.returncode, error) == (2, "error: a bad batch\n")
