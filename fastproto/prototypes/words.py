"""Word vectors as semantic prototypes: one per class name, so that similar classes start close together."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fastproto.checks import check_sharpness
from fastproto.prototypes.files import Prototypes, make
from fastproto.prototypes.quality import unit_rows

Vector = NDArray[np.float64]


def load_word_vectors(
    path: str | os.PathLike[str],
    class_names: Sequence[str],
    *,
    t: float = 2.0,
    device: torch.device | str | None = None,
) -> Prototypes:
    """Unit word vectors in the order of the class names, method ``word_vectors``.

    A text file has a name and its numbers in each line (GloVe, word2vec, fastText; a first line with two counts is
    passed over; a name that contains spaces is followed by a tab). An ``.npz`` has arrays ``names`` [N] and ``vectors``
    [N, D]. Case does not matter, nor whether words are joined by a space, ``_`` or ``-``. A class name of several words
    that is not in the file becomes the mean of the directions of its words.

    Args:
        path: ``.npz``, or any other suffix for text. Text is read line by line: only what is needed is kept.
        class_names: one for each class, at least two.
        t: sharpness for the quality.
        device: where the vectors end up; None is the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: fewer than two names or the same name twice, names that are not in the file, rows of unequal length,
            numbers that cannot be read, zero or non-finite vectors.
    """
    t = check_sharpness(t)
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file of word vectors at {path}; expected text or .npz: check the path")
    wanted = [_key(name) for name in class_names]
    distinct = len(set(wanted))
    if distinct < max(2, len(wanted)):
        raise ValueError(f"class_names has {distinct} distinct of {len(wanted)} names; expected at least 2, each once")
    needed = set(wanted) | {word for name in wanted for word in name.split()}
    found: dict[str, Vector] = {}
    for name, vector in _npz(path) if path.suffix == ".npz" else _text(path, needed):
        found.setdefault(_key(name), vector)  # the first of several spellings: files list frequent words first
    missing = [name for name in wanted if name not in found and not all(word in found for word in name.split())]
    if missing:
        shown = ", ".join(repr(name) for name in missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise ValueError(
            f"{path} has no vector for {len(missing)} of {len(wanted)} classes ({shown}); add or rename them"
        )
    rows = [found[name] if name in found else _mean([found[word] for word in name.split()]) for name in wanted]
    lengths = {len(row) for row in rows}
    if len(lengths) > 1 or min(lengths) < 2:
        raise ValueError(f"{path} has vectors of {sorted(lengths)} numbers; expected one length, at least 2")
    vectors = unit_rows(str(path), torch.from_numpy(np.stack(rows)))
    return make(vectors, t, "word_vectors", device=device)


def _key(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("-", " ").lower().split())


def _mean(vectors: list[Vector]) -> Vector:
    if len({len(vector) for vector in vectors}) > 1:
        return vectors[0]  # of unequal lengths: the caller names them
    mean: Vector = np.mean([vector / max(float(np.linalg.norm(vector)), 1e-30) for vector in vectors], axis=0)
    return mean


def _npz(path: Path) -> Iterator[tuple[str, Vector]]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names, vectors = arrays["names"], arrays["vectors"].astype(np.float64)
    except Exception as error:  # zipfile, NumPy and pickle each have errors of their own
        raise ValueError(
            f"{path} could not be read as word vectors ({type(error).__name__}); expected arrays 'names' and 'vectors'"
        ) from error
    if vectors.ndim != 2 or names.shape != (len(vectors),):
        raise ValueError(f"{path} has names {names.shape} and vectors {vectors.shape}; expected [N] and [N, D]")
    return iter(zip((str(name) for name in names), vectors, strict=True))


def _text(path: Path, needed: set[str]) -> Iterator[tuple[str, Vector]]:
    length = 0
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            line = line.rstrip()
            name, tab, values = line.partition("\t")
            fields = values.split() if tab else line.split(" ")
            if number == 1 and not tab and len(fields) == 2 and all(field.isdigit() for field in fields):
                length = int(fields[1])
                continue
            if not line:
                continue
            if not tab:
                length = length or len(fields) - 1
                name, fields = " ".join(fields[:-length]), fields[-length:]
            if _key(name) not in needed:
                continue
            try:
                yield name, np.array([float(field) for field in fields])
            except ValueError as error:
                raise ValueError(
                    f"{path} line {number} is not a name and numbers; expected one vector a line"
                ) from error
