"""Atomic writes of files, and removal of the temporary files of dead processes."""

from __future__ import annotations

import contextlib
import io
import os
import re
import secrets
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

# `.NAME.HOST-PID-RANDOM.part.SUFFIX`: host and process tell whether the writer is still alive.
_TEMPORARY = re.compile(r"\..+\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}\.part(\.[^.]*)?", re.DOTALL)
_HOST = f"{zlib.crc32(socket.gethostname().encode()):08x}"
_ABANDONED = 86400.0  # seconds after which a file from another host counts as abandoned
_live: set[Path] = set()  # temporary files of this process
_cleaned: set[Path] = set()  # folders that this process has searched


def write_whole(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Call ``write`` with a temporary name in the same folder, then rename: a reader never sees half a file.

    A process's first write into a folder also removes the temporary files that killed processes left there.

    Raises:
        OSError: the file cannot be written (disk full, no permission). The message names ``path``, whose earlier
            content is untouched.
    """
    path = Path(path)
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent not in _cleaned:
            _cleaned.add(path.parent)
            remove_abandoned(path.parent)
        temporary = path.parent / _temporary_name(path)
        _live.add(temporary)
        try:
            write(temporary)
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            _live.discard(temporary)


def write_memory(path: str | os.PathLike[str], content: io.BytesIO) -> None:
    """Write a buffer with :func:`write_whole`, for writers that would hide the cause of a failed write."""
    data = content.getvalue()  # not getbuffer(): the traceback of an error would keep its view alive, and so the memory
    write_whole(path, lambda file: file.write_bytes(data))


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Replace an OSError inside by one of the same type and ``errno`` whose message names the file."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        reason = (error.strerror or os.strerror(error.errno)).lower()
        sentence = f"{path} cannot be written ({reason}); expected room and permission to write there"
        named = type(error)(f"{sentence}, and what was there before is untouched")
        named.errno = error.errno
        raise named from error


def _temporary_name(path: Path) -> str:
    """A temporary name of at most 255 bytes, the limit of file systems."""
    tail = f".{_HOST}-{os.getpid()}-{secrets.token_hex(4)}.part{path.suffix}"
    stem = path.stem.encode()[: max(254 - len(tail.encode()), 1)]
    return f".{stem.decode(errors='ignore') or 'x'}{tail}"


def remove_abandoned(folder: Path, *, claimed: bool = False) -> None:
    """Remove the temporary files of dead processes, and nothing else; never raise.

    Args:
        folder: searched without its subfolders.
        claimed: whether only this process may write in the folder: all temporary files but its own are then abandoned.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = _TEMPORARY.fullmatch(entry.name)
            if found is None or Path(entry.path) in _live:
                continue
            with contextlib.suppress(OSError):
                if claimed or _abandoned(found["host"], int(found["pid"]), entry.stat(follow_symlinks=False).st_mtime):
                    os.unlink(entry.path)


def _abandoned(host: str, pid: int, written: float) -> bool:
    if host != _HOST or os.name != "posix":
        return time.time() - written > _ABANDONED
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    return False


def remove_own_temporaries() -> None:
    """Remove the temporary files of this process, which is about to end without unwinding."""
    for temporary in tuple(_live):
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
