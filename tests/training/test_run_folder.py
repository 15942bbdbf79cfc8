"""Who may write where: claims, starts that were killed, files of others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fastproto.training import TrainConfig
from fastproto.training.run_folder import RunFolder


def claim(out: Path | None, resume: Path | None = None) -> Path:
    """The folder that such a run would have; the claim ends at once."""
    with RunFolder(config(out, resume)) as place:
        return place.claim()


def config(out: Path | None, resume: Path | None = None) -> TrainConfig:
    return TrainConfig(out=None if out is None else str(out), resume=None if resume is None else str(resume))


def begun(folder: Path, *names: str, resumed: Path | None = None) -> Path:
    """A folder as a run leaves it that has written these files."""
    facts = {"fastproto": "0.1.0", "resumed": None if resumed is None else str(resumed)}
    for name in ("config.yaml", *names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("a,b\n")
    (folder / "versions.json").write_text(json.dumps(facts))
    return folder


def test_one_run_in_a_folder(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with RunFolder(config(out)) as first, RunFolder(config(out)) as second:
        assert first.claim() == out
        with pytest.raises(ValueError, match="in use by a run that is still going"):
            second.claim()
        assert list(out.iterdir()) == []
    assert claim(out) == out  # and the claim has ended


def test_a_run_that_is_going_on_is_not_resumed(tmp_path: Path) -> None:
    run = begun(tmp_path / "run", "checkpoints/last.ckpt")
    with RunFolder(config(None, run)) as first:
        for out in (None, run):
            with pytest.raises(ValueError, match="still going"), RunFolder(config(out, run)):
                pass
        with RunFolder(config(tmp_path / "other", run)) as other:  # only read
            assert other.claim() == tmp_path / "other"
        assert first.claim() == run
    assert claim(None, run) == claim(run, run / "checkpoints" / "last.ckpt") == run


def test_a_start_that_was_killed_is_begun_again(tmp_path: Path) -> None:
    left = (".last.00000000-1-00000000.part.ckpt", "class_means/00000002.npz", "metrics.csv", "notes.txt")
    run = begun(tmp_path / "run", *left)
    with RunFolder(config(None, run)) as place:
        assert place.config.resume is None and place.config.out == str(run)
        assert place.claim() == run
    # killed here, it can be resumed again: its settings and its facts are still there
    assert sorted(file.name for file in run.iterdir()) == ["config.yaml", "notes.txt", "versions.json"]
    begun(run, *left)
    assert claim(run) == run and not (run / "metrics.csv").exists()
    # killed between its first two checkpoints: the one that is there holds the same
    begun(run, "checkpoints/best.ckpt")
    with RunFolder(config(None, run)) as place:
        assert place.config.resume == str(run / "checkpoints" / "best.ckpt") and place.claim() == run
    assert (run / "checkpoints" / "best.ckpt").exists()
    # gone on from another run, and killed before a checkpoint of its own
    old = begun(tmp_path / "old", "checkpoints/last.ckpt") / "checkpoints" / "last.ckpt"
    new = begun(tmp_path / "new", "checkpoints/best.ckpt", resumed=old)
    with RunFolder(config(None, new)) as place:
        assert place.config.resume == str(old) and place.claim() == new
    begun(new, "checkpoints/best.ckpt", resumed=old)
    assert claim(new, old) == new


def test_class_means_after_the_checkpoint_go(tmp_path: Path) -> None:
    run = begun(tmp_path / "run", "checkpoints/last.ckpt", *(f"class_means/{step:08d}.npz" for step in (5, 10, 15)))
    with RunFolder(config(None, run)) as place:
        place.claim(step=10)
    assert [file.name for file in (run / "class_means").iterdir()] == ["00000005.npz"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["checkpoints/last.ckpt"], "already holds a run"),
        (["checkpoints/best.ckpt"], "already holds a run"),
        (["curves.png"], "already holds a run"),
    ],
)
def test_a_run_is_never_begun_over_another(names: list[str], words: str, tmp_path: Path) -> None:
    run = begun(tmp_path / "run", *names)
    other = begun(tmp_path / "other", "checkpoints/last.ckpt")
    before = sorted(file.relative_to(run) for file in run.rglob("*"))
    for resume in (None, other):
        if resume is None or "best" not in names[0]:
            with pytest.raises(ValueError, match=words):
                claim(run, resume)
    assert sorted(file.relative_to(run) for file in run.rglob("*")) == before


def test_a_run_whose_checkpoints_were_removed_is_still_one(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    (run / "metrics.csv").write_text("epoch,step,test/accuracy_top1\n1,20,0.5\n")
    with pytest.raises(ValueError, match="already holds a run"):
        claim(run)


@pytest.mark.parametrize("name", ["metrics.csv", "config.yaml", "versions.json", "curves.png", "checkpoints/mine.txt"])
def test_files_of_others_are_never_overwritten(name: str, tmp_path: Path) -> None:
    file = tmp_path / "folder" / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    with pytest.raises(ValueError, match=r"which a run would overwrite|already holds a run"):
        claim(tmp_path / "folder")
    assert file.read_text() == "mine"


def test_places_that_are_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to("missing")
    (tmp_path / "link").symlink_to(begun(tmp_path / "real"))
    wrong: list[Any] = ["file", "file/below", "nowhere", "x" * 300, "/proc/1/run"]
    for out in wrong:
        with pytest.raises(ValueError, match="cannot be a run folder"):
            claim(Path(out))
    with pytest.raises(ValueError, match="out is ' '; expected a text"):
        TrainConfig(out=" ").check()
    assert claim(Path("link")) == Path("link") and claim(Path("a/b")).is_dir()


def test_numbered_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [claim(None).name for _ in range(3)] == ["digits", "digits-2", "digits-3"]
    with RunFolder(TrainConfig(name="mine")) as place:
        assert place.claim() == Path("runs/mine")
    with pytest.raises(ValueError, match="plain folder name"), RunFolder(TrainConfig(name="a/b")) as place:
        place.claim()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "runs").touch()
    with pytest.raises(ValueError, match="cannot be a run folder"):
        claim(None)
