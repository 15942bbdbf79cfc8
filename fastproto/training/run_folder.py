"""The folder of a run: claimed by one process, and overwritten only if it holds the remains of a killed start."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from fastproto.support.atomic_files import remove_abandoned
from fastproto.support.stopping import has_checkpoint, stopping
from fastproto.training.checkpoint_files import find_checkpoint
from fastproto.training.config_files import run_of
from fastproto.training.settings_and_flags import TrainConfig

FACTS = "versions.json"  # the first file that a run writes: it marks a run folder
CLASSES = "classes.csv"  # written by the test
FOLDERS = ("checkpoints", "class_means", "tensorboard", "wandb")
PICTURES = ("curves.png", "changed.png", "cosines.png", "sphere.png")
WRITTEN = (FACTS, "config.yaml", "metrics.csv", CLASSES, *FOLDERS, *PICTURES)
_NO_LOCKS = (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
_locks: set[int] = set()  # descriptors of held locks, closed in a forked process


class Lock:
    """An exclusive lock on a folder; the system releases it when this process ends for any reason.

    The folder itself is locked, so that no lock file is left behind. On a file system without locks of folders (some
    network file systems) a file ``.lock`` in the folder is locked, or nothing.

    Raises:
        ValueError: another process holds the lock.
        OSError: the folder cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        self.descriptor: int | None = None
        try:
            import fcntl
        except ImportError:  # not on this system
            return
        for name, flags in (("", os.O_RDONLY), (".lock", os.O_RDWR | os.O_CREAT)):
            try:
                descriptor = os.open(folder / name, flags, 0o666)
            except OSError:
                if not name:
                    raise
                return
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(descriptor)
                if error.errno in (errno.EAGAIN, errno.EACCES):
                    raise ValueError(
                        f"{folder} is in use by a run that is still going; expected a folder of its own for each run: "
                        "wait for that run, or name another folder with --out"
                    ) from error
                if error.errno not in _NO_LOCKS:
                    raise
                continue
            _locks.add(descriptor)
            self.descriptor = descriptor
            return

    def release(self) -> None:
        if self.descriptor is not None:
            _locks.discard(self.descriptor)
            os.close(self.descriptor)
            self.descriptor = None


def _close_locks() -> None:
    for descriptor in _locks:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _locks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_locks)


class RunFolder:
    """The folder that a run writes to, and the checkpoint that it continues from.

    Entering the context writes nothing; ``claim`` is the first to write. The folder of a resumed run is locked on
    entry, since its checkpoint must not change between two reads. Only rank 0 locks and claims.

    Args:
        config: ``out`` and ``resume`` determine the folder.

    Attributes:
        config: the same after :func:`begin_again`: ``resume`` is None if there is no checkpoint to continue from.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.lock: Lock | None = None
        self.config = begin_again(config)

    def __enter__(self) -> RunFolder:
        if self.config.resume is not None and _is_rank_0():
            checkpoint = find_checkpoint(self.config.resume)
            folder = run_of(checkpoint)
            if self._continues_in_place(folder):
                self.lock = Lock(folder)
        return self

    def __exit__(self, *error: object) -> None:
        if self.lock is not None:
            self.lock.release()
            self.lock = None

    def _continues_in_place(self, resumed: Path) -> bool:
        """Whether the run continues in the folder of the resumed run."""
        out = self.config.out
        return out is None or (Path(out).exists() and resumed.exists() and Path(out).samefile(resumed))

    def claim(self, step: int | None = None) -> Path:
        """Claim the folder for this run, and return it.

        Args:
            step: optimiser steps at the checkpoint; class means saved from there on are removed.

        Raises:
            ValueError: the folder is in use, holds a run or files that a run would overwrite, or cannot be made.
            OSError: the folder of a resumed run cannot be written.
        """
        config = self.config
        out = None if config.out is None else Path(config.out)
        if not _is_rank_0():
            return self._folder_of_other_ranks()
        if config.resume is not None and self._continues_in_place(run_of(find_checkpoint(config.resume))):
            folder = out or run_of(find_checkpoint(config.resume))
        elif out is None:
            folder, self.lock = _first_free(config.name or config.data.name)
        else:
            folder, self.lock = out, _claim_new(out)
        for place in (folder, *(folder / name for name in FOLDERS)):
            remove_abandoned(place, claimed=True)
        for file in (folder / "class_means").glob("[0-9]*.npz"):
            if step is not None and file.stem.isdigit() and int(file.stem) >= step:
                file.unlink()
        return folder

    def _folder_of_other_ranks(self) -> Path:
        """The folder as other ranks know it; rank 0 passes it to the ranks that it starts, and to all at the end."""
        if stopping.follows and stopping.folder is not None:
            return stopping.folder
        if self.config.out is not None:
            return Path(self.config.out)
        if self.config.resume is not None:
            return run_of(find_checkpoint(self.config.resume))
        return Path("runs") / (self.config.name or self.config.data.name)


def _is_rank_0() -> bool:
    node = os.environ.get("NODE_RANK", os.environ.get("GROUP_RANK", "0"))
    return int(getattr(rank_zero_only, "rank", 0)) == 0 and int(node) == 0


def begin_again(config: TrainConfig) -> TrainConfig:
    """Resume a run that was killed before its first last.ckpt from where it had started.

    That is: from scratch, or from the checkpoint of another run. A run that was killed between its first best.ckpt and
    its first last.ckpt, which are equal, is resumed from best.ckpt.
    """
    if config.resume is None or not Path(config.resume).is_dir():
        return config
    folder = Path(config.resume)
    facts = _facts(folder)
    if facts is None or _holds_run(folder):
        return config
    best = folder / "checkpoints" / "best.ckpt"
    begun: str | None = facts.get("resumed")
    if begun is None and best.exists():
        begun = str(best)
    return replace(config, out=config.out or str(folder), resume=begun)


def _claim_new(folder: Path) -> Lock:
    """Make and lock the folder, and remove what an unfinished start has left in it."""
    with _path_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        lock = Lock(folder)
    try:
        _check_free(folder)
        _remove_unfinished(folder)
    except BaseException:
        lock.release()
        raise
    return lock


@contextlib.contextmanager
def _path_errors(folder: Path) -> Iterator[None]:
    """Turn an OSError about the folder into a ValueError that says what to do."""
    try:
        yield
    except OSError as error:
        if isinstance(error, FileExistsError):
            reason = "it is a file or a dangling link"
        else:
            reason = (error.strerror or str(error)).lower()
        raise ValueError(
            f"{folder} cannot be a run folder ({reason}); expected a folder that can be made and written: "
            "name another with --out"
        ) from error


def _check_free(folder: Path) -> None:
    facts = _facts(folder)
    begun = facts is not None and facts.get("resumed") is None
    if _holds_run(folder) or (begun and has_checkpoint(folder)):
        raise ValueError(f"{folder} already holds a run; name another with --out, or go on with --resume {folder}")
    foreign = [name for name in WRITTEN if os.path.lexists(folder / name)] if facts is None else []
    if foreign:
        raise ValueError(
            f"{folder} holds {foreign[0]}, which a run would overwrite; expected a new or empty folder: "
            "name another with --out"
        )


def _holds_run(folder: Path) -> bool:
    return (folder / "checkpoints" / "last.ckpt").exists() or _is_finished(folder)


def _is_finished(folder: Path) -> bool:
    """Whether a run has reached its test, even if its checkpoints were removed since."""
    metrics = folder / "metrics.csv"
    with contextlib.suppress(OSError, UnicodeDecodeError), metrics.open(newline="") as file:
        if "test/" in file.readline():
            return True
    return any((folder / name).exists() for name in PICTURES)


def _facts(folder: Path) -> dict[str, Any] | None:
    """The content of versions.json; None: this is not a run folder."""
    with contextlib.suppress(OSError, ValueError):
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        if isinstance(facts, dict) and "fastproto" in facts:
            return facts
    return None


def _remove_unfinished(folder: Path) -> None:
    """Remove the files of an unfinished start, except versions.json and config.yaml.

    These are replaced later: a process that is killed in between can be resumed as before.
    """
    if _facts(folder) is None:
        return
    for name in FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "metrics.csv").unlink(missing_ok=True)


def _first_free(name: str) -> tuple[Path, Lock]:
    """Make and lock the first of runs/NAME, runs/NAME-2, ... that does not exist."""
    if name in ("", ".", "..") or "/" in name:
        raise ValueError(f"name is {name!r}; expected a plain folder name: use --out for a path")
    number = 1
    while True:
        folder = Path("runs") / (name if number == 1 else f"{name}-{number}")
        with _path_errors(folder):
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                if not folder.parent.is_dir():  # a dangling link
                    raise
                number += 1
            else:
                return folder, Lock(folder)
