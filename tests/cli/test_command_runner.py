"""Exit codes, signals, and standard output and error of any kind."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image

from fastproto.cli import predict, prototypes, train
from fastproto.cli.command_runner import exit_code
from fastproto.support.exit_codes import INTERRUPTED
from fastproto.support.stopping import stopping

PROTOTYPES = ["--num-classes", "5", "--dim", "3"]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyError("lost"), 1, "unexpected KeyError: 'lost'; set FASTPROTO_TRACEBACK=1"),
        (RuntimeError("two\nlines"), 1, "unexpected RuntimeError: two lines"),
        (TypeError("no"), 1, "unexpected TypeError"),
        (MemoryError(), 2, "not enough memory (MemoryError); use a smaller data.batch_size (--batch-size without"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes"), 2, "not enough memory"),
        (ValueError("x is 1; expected 2"), 2, "x is 1; expected 2"),
    ],
)
@pytest.mark.parametrize("traceback", [False, True])
def test_the_last_line_of_defence(
    error: Exception,
    code: int,
    message: str,
    traceback: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def command() -> None:
        raise error

    if traceback:
        monkeypatch.setenv("FASTPROTO_TRACEBACK", "1")
    else:
        monkeypatch.delenv("FASTPROTO_TRACEBACK", raising=False)
    assert exit_code(command) == code
    *before, last = capsys.readouterr().err.rstrip("\n").split("\n")
    assert last.startswith("error: ") and message in last
    assert ("Traceback (most recent call last):" in before) == traceback and bool(before) == traceback


def test_the_advice_is_of_this_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    monkeypatch.setattr(stopping, "folder", tmp_path)  # of a run before, in this process
    assert predict(["/none", "x.png"]) == 2
    assert "--resume" not in capsys.readouterr().err


class NoReader(io.StringIO):
    """A pipe whose other end is closed."""

    def write(self, text: str, /) -> int:
        raise BrokenPipeError


def test_nobody_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(9):
            Image.new("L", (8, 8), i).save(tmp_path / name / f"{i}.png")
    (tmp_path / "notes.txt").touch()
    monkeypatch.setattr(sys, "stderr", NoReader())
    # its note of what is not used cannot be written: the run has not been done, so it must not end with 0
    assert train(["--data", "image-folder", "--data.root", str(tmp_path), "--out", str(tmp_path / "run")]) == 2
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(sys, "stdout", NoReader())
    assert prototypes([*PROTOTYPES, "--no-cache"]) == 0  # as with | head


def test_closed_streams(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdout", None)  # as Python starts where they are closed
    assert prototypes([*PROTOTYPES, "--no-cache"]) == 0
    assert predict(["/none", "x.png"]) == 2
    assert "/none" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr(sys, "stderr", None)
    assert prototypes([*PROTOTYPES, "--no-cache"]) == 0
    assert capsys.readouterr().out.startswith("prototypes")
    assert predict(["/none", "x.png"]) == 2
    assert capsys.readouterr().out == ""


def test_a_terminal_of_another_encoding(tmp_path: Path) -> None:
    code = "import sys; from fastproto.cli import train; sys.exit(train(['--name=é😀', '--print_config']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    (tmp_path / "run.yaml").write_bytes(done.stdout)
    assert b"\\xe9" in done.stdout


def test_interruption_says_how_to_go_on(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; from fastproto.cli import train; sys.exit(train())"]
    arguments = ["--optim.epochs", "500", "--model", "mlp", "--accelerator", "cpu", "--out", "run"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command + arguments, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    limit = threading.Timer(120, process.kill)  # then the pipe ends, and so does the loop
    limit.start()
    said = b""
    try:
        while b"Epoch 1" not in said:  # the bar of the second epoch: the first has left a checkpoint
            some = process.stdout.read1()
            assert some, said
            said += some
        process.send_signal(signal.SIGINT)
        said += process.communicate(timeout=60)[0]
    finally:
        limit.cancel()
        process.kill()
        process.wait()
        process.stdout.close()
    assert process.returncode == INTERRUPTED
    assert b"go on with --resume run" in said and b"Traceback" not in said
