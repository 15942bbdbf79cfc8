"""Files that are written whole: no room, no permission, and what killed processes leave."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from fastproto.plots import draw_curves
from fastproto.prototypes import Prototypes
from fastproto.support.atomic_files import remove_abandoned, write_whole
from fastproto.training.checkpoint_files import WholeFileIO
from fastproto.training.metrics import MetricsFile

LEAVES_A_FILE = """
import os, sys
from fastproto.support.atomic_files import write_whole
def die(path):
    path.write_text("half")
    os.kill(os.getpid(), 9)
write_whole(sys.argv[1], die)
"""


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file may become longer than that; what a full disk does to a write, with another number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_no_room_names_the_file_and_leaves_the_old_one(tmp_path: Path) -> None:
    metrics, rows = tmp_path / "metrics.csv", "epoch,step,train/loss\n0,1,0.5\n1,2,0.25\n"
    metrics.write_text(rows)
    vectors = torch.eye(20)
    writers = {
        "last.ckpt": lambda path: WholeFileIO().save_checkpoint({"w": torch.ones(100_000)}, path),
        "p.pth": Prototypes(vectors, 2.0, "file", 0).save,
        "p.npy": Prototypes(vectors, 2.0, "file", 0).save,
        "p.npz": Prototypes(vectors, 2.0, "file", 0).save,
        "p.safetensors": Prototypes(vectors, 2.0, "file", 0).save,
        "curves.png": lambda path: draw_curves(metrics, path),
        "config.yaml": lambda path: write_whole(path, lambda file: file.write_text("x" * 2000)),
    }
    for name, write in writers.items():
        path = tmp_path / name
        path.write_text("old")
        with room_for(1000), pytest.raises(OSError, match=f"{name} cannot be written .file too large.*; ") as caught:
            write(path)
        assert caught.value.errno == errno.EFBIG and path.read_text() == "old"
        write(path)  # there is room again
        assert path.stat().st_size > 1000
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


def test_no_room_for_a_row_leaves_the_rows_before(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.csv")
    file.log_metrics({"a": 1.0, "epoch": 0}, 1)
    before = file.path.read_bytes()
    with room_for(len(before) + 3), pytest.raises(OSError, match=r"metrics\.csv cannot be written"):
        file.log_metrics({"a": 2.0, "epoch": 1}, 2)
    assert file.path.read_bytes() == before


def test_a_checkpoint_is_the_same_file_each_time(tmp_path: Path) -> None:
    for name in ("a.ckpt", "b.ckpt"):
        WholeFileIO().save_checkpoint({"w": torch.arange(9.0), "n": [1, "two"]}, tmp_path / name)
    assert (tmp_path / "a.ckpt").read_bytes() == (tmp_path / "b.ckpt").read_bytes()
    assert torch.equal(torch.load(tmp_path / "a.ckpt", weights_only=True)["w"], torch.arange(9.0))


def test_what_a_killed_process_leaves_goes_with_the_next_write(tmp_path: Path) -> None:
    for name in ("x" * 250 + ".txt", "a.npz"):  # the second removes what the first has left
        assert subprocess.run([sys.executable, "-c", LEAVES_A_FILE, str(tmp_path / name)]).returncode == -9
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".a.") and left.suffix == ".npz"
    host, dead = left.name.split(".")[2].split("-")[:2]
    strangers = [
        f".a.{host}-{os.getpid()}-00000000.part.npz",  # a process that lives
        f".a.{int(host, 16) ^ 1:08x}-{dead}-00000000.part.npz",  # of another machine, just written
        ".a.part.npz",
        f".a.{host}-{dead}-00000000.npz",
        f"a.{host}-{dead}-00000000.part.npz",
    ]
    for name in strangers:
        (tmp_path / name).touch()
    write_whole(tmp_path / "b.npz", lambda file: np.savez(file, a=np.ones(3)))
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([*strangers, "b.npz"])
    os.utime(tmp_path / strangers[1], (0, 0))  # nobody writes for years
    remove_abandoned(tmp_path)
    assert not (tmp_path / strangers[1]).exists() and (tmp_path / strangers[0]).exists()
    remove_abandoned(tmp_path, claimed=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([*strangers[2:], "b.npz"])
