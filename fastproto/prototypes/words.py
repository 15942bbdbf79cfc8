"""Word vectors as semantic prototypes: one per class name, similar classes close together."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fastproto.prototypes.files import Prototypes, make
from fastproto.prototypes.quality import unit_rows
from fastproto.support.array_files import Array, read_npz
from fastproto.support.checks import check_sharpness
from fastproto.support.text_files import is_decoded, text_lines

Vector = NDArray[np.float64]
BLANKS = re.compile(r"[ \t]+")
NPZ_KINDS = (("U", "f"), ("U", "i"), ("U", "u"))  # dtype kinds of names and vectors


def load_word_vectors(
    path: str | os.PathLike[str],
    class_names: Sequence[str],
    *,
    t: float = 2.0,
    device: torch.device | str | None = None,
) -> Prototypes:
    """Unit word vectors in the order of the class names, method ``word_vectors``.

    A text file has a name and its numbers in each line (GloVe, word2vec, fastText; a first line with two counts is
    skipped; a name that contains spaces is followed by a tab). An ``.npz`` has arrays ``names`` [N] and ``vectors``
    [N, D]. Case does not matter, nor whether words are joined by a space, ``_`` or ``-``. A class name of several words
    that is not in the file becomes the mean of the directions of its words. Text may be UTF-8 or UTF-16 with any line
    ends; of several lines for one name the first counts.

    Args:
        path: ``.npz``, or any other suffix for text. Text is read line by line: only what is needed is kept.
        class_names: one for each class, at least two.
        t: sharpness for the quality.
        device: of the vectors; None is the CPU.

    Returns:
        prototypes, in the order of ``class_names``: vectors [C, D] float32.

    Raises:
        FileNotFoundError: no such file.
        ValueError: fewer than two names or the same name twice, names that are not in the file, rows of unequal length,
            numbers that cannot be read, zero or non-finite vectors, a compressed or binary file.
    """
    t = check_sharpness(t)
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file of word vectors at {path}; expected text or .npz: check the path")
    wanted = [_key(name) for name in class_names]
    distinct = len(set(wanted))
    if distinct < max(2, len(wanted)):
        raise ValueError(f"class_names has {distinct} distinct of {len(wanted)} names; expected at least 2, each once")
    text = _Text(path, set(wanted) | {word for name in wanted for word in name.split()})
    found: dict[str, Vector] = {}
    for name, vector in _npz(path) if path.suffix == ".npz" else text:
        found.setdefault(_key(name), vector)  # the first of several spellings: files list frequent words first
    missing = [name for name in wanted if name not in found and not all(word in found for word in name.split())]
    if missing:
        names = ", ".join(repr(name) for name in missing[:5]) + (", ..." if len(missing) > 5 else "")
        coded = f"; line {text.undecoded} is not UTF-8 text: check the file's encoding" if text.undecoded else ""
        raise ValueError(
            f"{path} has no vector for {len(missing)} of {len(wanted)} classes ({names}); add or rename them{coded}"
        )
    rows = [found[name] if name in found else _mean([found[word] for word in name.split()]) for name in wanted]
    lengths = {len(row) for row in rows}
    if len(lengths) > 1 or min(lengths) < 2:
        raise ValueError(f"{path} has vectors of {sorted(lengths)} numbers; expected one length, at least 2")
    vectors = unit_rows(str(path), torch.from_numpy(np.stack(rows)))
    return make(vectors, t, "word_vectors", device=device)


def read_names(path: str | os.PathLike[str]) -> list[str]:
    """Class names, one a line, stripped; blank lines are skipped.

    Raises:
        OSError: the file cannot be opened.
        ValueError: no name, or a file that is not text (:func:`fastproto.support.text_files.text_lines`).
    """
    names = [line for _, line in text_lines(path)]
    if not names:
        raise ValueError(f"{path} holds no name; expected a class name in each line")
    return names


def _key(name: str) -> str:
    name = name if name.isascii() else unicodedata.normalize("NFC", name)
    return " ".join(name.replace("_", " ").replace("-", " ").lower().split())


def _mean(vectors: list[Vector]) -> Vector:
    if len({len(vector) for vector in vectors}) > 1:
        return vectors[0]  # of unequal lengths: the caller reports them
    mean: Vector = np.mean([vector / max(float(np.linalg.norm(vector)), 1e-30) for vector in vectors], axis=0)
    return mean


def _npz(path: Path) -> Iterator[tuple[str, Vector]]:
    try:
        arrays = read_npz(path, ("names", "vectors"))
        names, vectors = arrays["names"], arrays["vectors"]
        if names.dtype.kind == "S":
            names = np.char.decode(names, "utf-8")
        _check_characters(names)
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"{path} could not be read as word vectors ({error}); expected arrays 'names' and 'vectors'"
        ) from error
    if vectors.ndim != 2 or names.shape != (len(vectors),) or (names.dtype.kind, vectors.dtype.kind) not in NPZ_KINDS:
        raise ValueError(
            f"{path} has names {names.dtype} {list(names.shape)} and vectors {vectors.dtype} {list(vectors.shape)}; "
            "expected [N] and [N, D], text and numbers"
        )
    return ((str(name), vector.astype(np.float64)) for name, vector in zip(names, vectors, strict=True))


def _check_characters(names: Array) -> None:
    """Raise ValueError for numbers above the largest code point, which Python's strings cannot hold."""
    if names.dtype.kind == "U" and names.nbytes:
        codes = np.ascontiguousarray(names).view(np.dtype(np.uint32).newbyteorder(names.dtype.byteorder))
        if codes.max(initial=0) > sys.maxunicode:
            raise ValueError("'names' holds numbers above the largest Unicode code point")


class _Text:
    """The needed names and their vectors, read from a text file."""

    def __init__(self, path: Path, needed: set[str]) -> None:
        self.path, self.needed = path, needed
        self.length = 0  # numbers in a line, once known
        self.undecoded = 0  # number of the first line that is not UTF-8: public files have some, rarely needed

    def __iter__(self) -> Iterator[tuple[str, Vector]]:
        first = True
        for number, line in text_lines(self.path, strict=False):
            if not self.undecoded and not is_decoded(line):
                self.undecoded = number
            plain = "  " not in line and "\t" not in line
            fields = line.split(" ") if plain else BLANKS.split(line)
            if first and len(fields) == 2 and all(field.isdecimal() for field in fields):
                self.length = int(fields[1])
            elif found := self._parse(number, line, fields):
                yield found
            first = False
        if first:
            raise ValueError(f"{self.path} is empty; expected a name and its numbers in each line")

    def _parse(self, number: int, line: str, fields: list[str]) -> tuple[str, Vector] | None:
        name, tab, values = line.partition("\t")
        if tab:
            fields = values.split()
        else:
            self.length = self.length or min(_numbers_at_end(fields), len(fields) - 1)
            name, fields = _split(fields, self.length, self.needed)
        if _key(name) not in self.needed:
            return None
        try:
            vector = np.array([float(field) for field in fields])
        except ValueError as error:
            raise ValueError(
                f"{self.path} line {number} is not a name and numbers; expected one vector a line"
            ) from error
        self.length = self.length or len(vector)
        if not len(vector) == self.length > 0:
            expected = f"{self.length} as in the lines before" if self.length else "a name and its numbers"
            raise ValueError(f"{self.path} line {number} has {len(vector)} numbers; expected {expected}")
        if not np.isfinite(vector).all():
            raise ValueError(f"{self.path} line {number} holds NaN or inf; expected finite numbers")
        return name, vector


def _split(fields: list[str], length: int, needed: set[str]) -> tuple[str, list[str]]:
    """Name and numbers of a line; a needed name with too few or too many numbers is returned, for an error."""
    start = max(len(fields) - length, 0)
    name = " ".join(fields[:start])
    if len(fields) == length + 1 or _key(name) in needed:
        return name, fields[start:]
    start = max(len(fields) - _numbers_at_end(fields), 1)
    return " ".join(fields[:start]), fields[start:]


def _numbers_at_end(fields: list[str]) -> int:
    for count, field in enumerate(reversed(fields)):
        try:
            float(field)
        except ValueError:
            return count
    return len(fields)
