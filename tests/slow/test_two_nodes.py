"""torchrun starts one process on each of two "nodes" of this machine: one run folder, one report."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_only_the_first_node_reports(tmp_path: Path) -> None:
    programs = Path(sys.executable).parent
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [programs / "torchrun", "--no-python", "--nnodes", "2", "--nproc-per-node", "1"]
    launch += ["--master-addr", "127.0.0.1", "--master-port", str(port)]
    train = [programs / "fastproto-train", "--num-nodes", "2", "--devices", "1", "--accelerator", "cpu"]
    train += ["--out", "run", "--optim.epochs", "1", "--progress", "false"]
    nodes = [
        subprocess.Popen(
            [*launch, "--node-rank", str(rank), *train],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    written = [node.communicate(timeout=240) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], written
    assert [out.count("test accuracy") for out, _ in written] == [1, 0]
    assert [folder.name for folder in tmp_path.iterdir()] == ["run"]
