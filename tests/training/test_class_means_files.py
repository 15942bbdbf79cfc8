"""Class means that a run saves at its renewals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fastproto.assignment import assign
from fastproto.training import fit
from fastproto.training.renewals import read_class_means

from .helpers import column, quick, rows, state

pytestmark = pytest.mark.usefixtures("no_pictures")


def test_class_means_are_saved_as_a_renewal_finds_them(tmp_path: Path) -> None:
    changes = {"head__save_class_means": True, "head__renewals_per_epoch": 2.0, "head__dim": 3}
    fit(quick(tmp_path, **changes))
    saved = read_class_means(tmp_path)
    steps = [int(row["step"]) for row in rows(tmp_path) if "assignment/changed" in row]
    assert saved["step"].tolist() == steps and len(steps) == 3
    assert saved["class_means"].shape == saved["prototypes"].shape == (3, 10, 3)
    changed = column(tmp_path, "assignment/changed")
    after = [*saved["assignment"][1:], state(tmp_path)["head.assignment"].numpy()]
    for before, found, means, w, share in zip(
        saved["assignment"], after, saved["class_means"], saved["prototypes"], changed, strict=True
    ):
        assert share == pytest.approx(np.mean(before != found))
        best = assign(torch.from_numpy(means), torch.from_numpy(w)).objective
        q = means / np.linalg.norm(means, axis=1, keepdims=True)
        assert float((q * w[found]).sum()) == pytest.approx(best, abs=1e-4)


def test_a_run_without_saved_class_means(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="save_class_means true"):
        read_class_means(tmp_path)


def test_saved_class_means_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("run", "class_means")
    folder.mkdir(parents=True)
    good = {"class_means": np.zeros((3, 2), "f4"), "prototypes": np.ones((3, 2), "f4"), "assignment": np.arange(3)}
    np.savez(folder / "00000001.npz", **good)
    np.savez(folder / ".00000002.x.npz", **good)  # a temporary file
    (folder / "notes.npz").write_bytes(b"x")
    assert read_class_means(Path("run"))["class_means"].shape == (1, 3, 2)
    bad = [
        good | {"assignment": np.arange(2)},
        good | {"prototypes": np.ones((3, 2))},
        {"class_means": good["class_means"]},
        good | {"assignment": np.array([None, None, None])},
        {name: array[:2] for name, array in good.items()},
    ]
    for arrays in bad:
        np.savez(folder / "00000005.npz", **arrays)
        with pytest.raises(ValueError, match=r"00000005\.npz .*expected") as caught:
            read_class_means(Path("run"))
        assert "\n" not in str(caught.value)
    (folder / "00000005.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match=r"00000005\.npz could not be read as class means"):
        read_class_means(Path("run"))
