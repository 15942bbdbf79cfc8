"""Reads arrays from untrusted files: no pickled objects, and no memory for a size that a header merely claims.

A ``.npy`` file takes as much memory as it has bytes. An archive may unpack to 100 times its size, or to 16 MiB if that
is more; a larger one is refused before it is unpacked.
"""

from __future__ import annotations

import math
import os
import warnings
import zipfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.lib import format as npy_format

Array = np.ndarray[Any, np.dtype[Any]]

RATIO = 100  # largest ratio of unpacked bytes to bytes of the archive
LONGEST_HEADER = 10_000  # bytes, as NumPy's own limit
ALWAYS = 2**24  # bytes that an archive of any size may unpack to


def read_npy(path: str | os.PathLike[str]) -> Array:
    """Read the array of a ``.npy`` file, in C order and native byte order.

    Raises:
        OSError: the file cannot be opened.
        ValueError: not a ``.npy`` file, a pickled array, or a header that contradicts the size of the file.
    """
    with open(path, "rb") as file:
        return _read_array(file, os.fstat(file.fileno()).st_size)


def read_npz(path: str | os.PathLike[str], names: Sequence[str] | None = None) -> dict[str, Array]:
    """Read the arrays of a ``.npz`` archive, by name.

    Args:
        names: the arrays to read; those that the archive lacks are left out. None: all.

    Raises:
        OSError: the file cannot be opened.
        ValueError: as :func:`read_npy`; also a file that is no archive, is damaged or unpacks to too much.
    """
    with open(path, "rb") as file:
        limit = max(RATIO * os.fstat(file.fileno()).st_size, ALWAYS)
        try:
            return _read_members(file, names, limit)
        except Exception as error:  # zipfile raises BadZipFile, zlib.error, struct.error, RuntimeError, OSError, ...
            raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error


def check_torch_archive(path: str | os.PathLike[str]) -> None:
    """Check that a file of ``torch.save`` unpacks to at most its own size: torch writes uncompressed archives.

    Raises:
        ValueError: compressed members, or more bytes than the file has.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if any(info.compress_type != zipfile.ZIP_STORED for info in members):
        raise ValueError("its content is compressed, which torch.save never does")
    if sum(info.file_size for info in members) > Path(path).stat().st_size:
        raise ValueError("its content is larger than the file")


def _check_sizes(members: Sequence[zipfile.ZipInfo], limit: int) -> None:
    if len({info.filename for info in members}) < len(members):
        raise ValueError("it has two arrays of one name")
    if any(info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for info in members):
        raise ValueError("its compression is not one that NumPy writes")
    if sum(info.file_size for info in members) > limit:
        raise ValueError(f"it unpacks to more than {limit:,} bytes, {RATIO} times its size")


def _read_members(file: BinaryIO, names: Sequence[str] | None, limit: int) -> dict[str, Array]:
    with zipfile.ZipFile(file) as archive:
        wanted = [
            info
            for info in archive.infolist()
            if info.filename.endswith(".npy") and (names is None or info.filename[:-4] in names)
        ]
        _check_sizes(wanted, limit)
        return {info.filename[:-4]: _read_member(archive, info) for info in wanted}


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    with archive.open(info) as member:
        array = _read_array(cast(BinaryIO, member), info.file_size)
        member.read(1)  # at the end zipfile compares the checksum
        return array


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read shape, whether the array is in Fortran order, and dtype."""
    version = npy_format.read_magic(file)
    readers = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"it has version {version} of the .npy format; expected a plain array of numbers")
    length = file.read(2 if version == (1, 0) else 4)
    if int.from_bytes(length, "little") > LONGEST_HEADER:
        raise ValueError(f"its header is longer than {LONGEST_HEADER:,} bytes; expected a plain array of numbers")
    header = BytesIO(length + file.read(int.from_bytes(length, "little")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about headers that Python 2 wrote
        return readers[version](header)


def _read_array(file: BinaryIO, size: int) -> Array:
    shape, fortran, dtype = _read_header(file)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, which are not read")
    claimed = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or claimed != size - file.tell():
        raise ValueError(f"its header claims {dtype} {list(shape)} and the file has {size - file.tell():,} bytes of it")
    content = np.empty(claimed, np.uint8)
    view, filled = content.data, 0
    while filled < claimed:
        count = cast(Any, file).readinto(view[filled : filled + 2**20])
        if not count:
            raise ValueError(f"it ends after {filled:,} of {claimed:,} bytes")
        filled += count
    array = content.view(dtype).reshape(shape, order="F" if fortran else "C")
    return np.ascontiguousarray(array, dtype.newbyteorder("=")).reshape(shape)
