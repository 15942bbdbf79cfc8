"""Runs on one and two ranks in turn, and one kill of each kind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fastproto.training.checkpoint_files import read_checkpoint

pytestmark = pytest.mark.slow

# Writes what a rank holds when its training begins, before anything is trained.
SCRIPT = """
import sys
import lightning
import torch
from fastproto.cli import train

noted = []

def note(self):
    if noted:
        return
    noted.append(True)
    optimizer = self.optimizers().optimizer.state_dict()["state"]
    state = {"module": self.state_dict(), "optimizer": optimizer, "epoch": self.current_epoch}
    torch.save(state, f"began-{self.global_rank}.pt")

lightning.LightningModule.on_train_epoch_start = note
sys.exit(train())
"""
BEGIN = ["--model", "mlp", "--accelerator", "cpu", "--optim.epochs", "4", "--out", "run", "--head.momentum", "0.8"]


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


@pytest.mark.parametrize("devices", [(1, 2), (2, 1)])
def test_another_number_of_ranks_goes_on_with_the_same_state(devices: tuple[int, int], tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    saved: dict[str, Any] = {}
    for number, arguments in zip(devices, (BEGIN, ["--resume", "run", "--optim.epochs", "8"]), strict=True):
        for file in tmp_path.glob("began-*.pt"):
            file.unlink()
        command = [sys.executable, "script.py", "--progress", "false", "--devices", str(number), *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        if not saved:
            saved = read_checkpoint(last)
    states = [torch.load(tmp_path / f"began-{rank}.pt") for rank in range(devices[1])]
    for state in states:
        assert state["epoch"] == 4
        assert state["module"].keys() == saved["state_dict"].keys()
        for name, value in saved["state_dict"].items():
            assert torch.equal(state["module"][name], value), name
        assert equal(state["optimizer"], saved["optimizer_states"][0]["state"])
    after = read_checkpoint(last)
    assert after["epoch"] == 7
    assert after["global_step"] - saved["global_step"] == 4 * (19 if devices[1] == 1 else 10)


def test_one_kill_of_each_kind(root: Path) -> None:
    command = [sys.executable, str(root / "scripts" / "kills"), "--runs", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
