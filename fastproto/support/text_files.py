"""Reads text as editors of any system write it: UTF-8 or UTF-16, any line ends, with or without a byte-order mark."""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Iterator
from pathlib import Path

LONGEST = 2**24  # characters of a line: bounds the memory where a file is read line by line
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
COMPRESSED = (
    (b"\x1f\x8b", "gzip"),
    (b"PK\x03\x04", "zip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ", "xz"),
    (b"(\xb5/\xfd", "zstd"),
)


def text_lines(path: str | os.PathLike[str], *, strict: bool = True) -> Iterator[tuple[int, str]]:
    """Yield the number (from 1) and the text of each line that is not blank, stripped.

    Args:
        path: a file in UTF-8, or in UTF-16 or UTF-32 with a byte-order mark; lines end with LF, CRLF or CR.
        strict: refuse bytes that are not UTF-8. Otherwise they are kept as lone surrogates (``surrogateescape``).

    Raises:
        OSError: the file cannot be opened.
        ValueError: a compressed or binary file, another encoding, a line of more than 2**24 characters; the message
            names the file and, where there is one, the line.
    """
    path = Path(path)
    encoding = _encoding(path)
    number = 0
    with path.open(encoding=encoding, errors="surrogateescape") as file:
        try:
            while line := file.readline(LONGEST + 1):
                number += 1
                if len(line) > LONGEST:
                    raise ValueError(f"{path} line {number} is longer than {LONGEST:,} characters; expected text")
                if "\0" in line:
                    raise ValueError(
                        f"{path} line {number} holds a NUL character; expected text: save the file as UTF-8"
                    )
                if strict and not is_decoded(line):
                    raise not_utf8(path, number)
                line = line.strip(" \t\r\n\ufeff")
                if line:
                    yield number, line
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is damaged {encoding.upper()} text; expected UTF-8: save it again") from error


def read_text(path: str | os.PathLike[str], largest: int, what: str) -> str:
    """Read a whole file or pipe in UTF-8, with or without a byte-order mark; errors name ``what`` as expected.

    Raises:
        OSError: the file cannot be opened.
        ValueError: a folder, more than ``largest`` bytes, another encoding.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; expected {what}")
    with path.open("rb") as file:
        data = file.read(largest + 1)
    if len(data) > largest:
        raise ValueError(f"{path} is larger than {largest:,} bytes; expected {what}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise not_utf8(path, data.count(b"\n", 0, error.start) + 1) from error


def is_decoded(text: str) -> bool:
    """Whether ``text`` has no lone surrogates, which stand for bytes that could not be decoded."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def not_utf8(path: Path, number: int) -> ValueError:
    return ValueError(f"{path} line {number} is not UTF-8 text; expected UTF-8: save the file in that encoding")


def _encoding(path: Path) -> str:
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError(f"{path} is a folder, a pipe or a device; expected a text file")
    with path.open("rb") as file:
        start = file.read(8)
    for mark, name in COMPRESSED:
        if start.startswith(mark):
            raise ValueError(f"{path} is compressed ({name}); expected plain text: unpack it first")
    return next((encoding for mark, encoding in BYTE_ORDER_MARKS if start.startswith(mark)), "utf-8")
