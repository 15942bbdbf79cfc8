"""Prototypes as an object, and the files they are kept in. Nothing in a file is ever executed (no pickled code)."""

from __future__ import annotations

import io
import math
import os
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastproto.prototypes.quality import Quality, measure_prototypes, unit_rows
from fastproto.support.array_files import check_torch_archive, read_npy, read_npz
from fastproto.support.atomic_files import write_memory, write_whole
from fastproto.support.checks import check_matrix, check_sharpness, check_unit_rows, shape_of

SUFFIXES = (".safetensors", ".npz", ".pth", ".npy")
LONGEST_METHOD = 100  # characters


@dataclass(frozen=True)
class Prototypes:
    """Unit vectors with their quality and how they were made."""

    vectors: Tensor  # [C, D] float32, unit rows
    t: float  # sharpness at which the quality is measured
    method: str  # "polygon", "simplex", "cross_polytope", ..., "lbfgs", "binary_code", "sgd", "word_vectors", "file"
    passes: int  # passes over all pairs that were spent
    seconds: float = 0.0  # spent on making them

    @cached_property
    def quality(self) -> Quality:
        """Measured on first access: it takes a float64 pass over all pairs, which a head does not need."""
        return measure_prototypes(self.vectors, self.t)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file atomically; the suffix chooses the format.

        ``.safetensors`` holds vectors, quality and method; ``.npz`` vectors, method, passes and seconds; ``.pth`` is
        the authors' format (``{'w': [D, C]}``) and ``.npy`` that of Hyperspherical Prototype Networks ([C, D]).

        Raises:
            ValueError: another suffix.
            OSError: the file cannot be written.
        """
        path = Path(path)
        vectors = self.vectors.detach().cpu().contiguous()
        content = io.BytesIO()  # on a full disk torch's writer hides the cause and NumPy's the failure
        if path.suffix == ".safetensors":
            data = as_safetensors(self)
            write_whole(path, lambda file: file.write_bytes(data))
        elif path.suffix == ".npz":
            facts = {"method": np.array(self.method), "passes": np.array(self.passes)}
            arrays = {"vectors": vectors.numpy(), "seconds": np.array(self.seconds), **facts}
            np.savez(content, **arrays)  # type: ignore[arg-type]  # NumPy's stubs read the names as its own options
            write_memory(path, content)
        elif path.suffix == ".pth":
            torch.save({"w": vectors.T.contiguous()}, content)
            write_memory(path, content)
        elif path.suffix == ".npy":
            np.save(content, vectors.numpy())
            write_memory(path, content)
        else:
            raise ValueError(f"cannot write prototypes to {path}; expected a name that ends in {', '.join(SUFFIXES)}")


def as_safetensors(prototypes: Prototypes, **more: str) -> bytes:
    """The content of a ``.safetensors`` file: vectors; as metadata how they were made, their quality and ``more``."""
    from safetensors.torch import save

    facts = {"method": prototypes.method, "passes": str(prototypes.passes), "seconds": repr(prototypes.seconds)}
    facts |= {key: repr(value) for key, value in asdict(prototypes.quality).items()}
    return save({"vectors": prototypes.vectors.detach().cpu().contiguous()}, metadata=facts | more)


def make(
    vectors: Tensor,
    t: float,
    method: str,
    *,
    passes: float = 0,
    seconds: float = 0.0,
    device: torch.device | str | None = None,
) -> Prototypes:
    """Prototypes, float32, of unit rows of any float dtype."""
    vectors = vectors.detach().to(device or "cpu", torch.float32)
    return Prototypes(vectors, t, method, int(np.ceil(passes)), seconds)


def load_prototypes(
    path: str | os.PathLike[str], *, t: float = 2.0, device: torch.device | str | None = None
) -> Prototypes:
    """Read our ``.safetensors`` or ``.npz``, the authors' ``.pth`` (``{'w': [D, C]}``) or HPN's ``.npy`` ([C, D]).

    The rows of the last two are normalised. Nothing in a file is ever executed (no pickled code), and sizes declared
    in a header are checked before memory is allocated (:mod:`fastproto.support.array_files`).

    Args:
        path: the suffix chooses the format.
        t: sharpness at which the quality is measured, > 0.
        device: of the vectors; None is the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown suffix, a damaged file, one that holds something else, NaN, zero rows.
    """
    t = check_sharpness(t)
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no prototype file {path}; make one with fastproto-prototypes --out {path}")
    try:
        vectors, method, passes, seconds = _read(path)
    except _WrongContentError:
        raise
    except Exception as error:  # each format's library has errors of its own for a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} could not be read as prototypes ({reason}); expected a whole {path.suffix} file: make it again"
        ) from error
    if not vectors.is_floating_point():
        raise ValueError(f"{path} holds a tensor of {vectors.dtype}; expected a matrix of floating-point numbers")
    check_matrix(str(path), vectors, min_rows=2)
    vectors = vectors.float()
    if path.suffix in (".pth", ".pt", ".npy"):
        vectors = unit_rows(str(path), vectors)
    check_unit_rows(str(path), vectors)
    return make(vectors, t, method, passes=passes, seconds=seconds, device=device)


class _WrongContentError(ValueError):
    """A readable file with other content; told apart from the libraries' own errors."""


def _read(path: Path) -> tuple[Tensor, str, int, float]:
    """Vectors, method, passes and seconds."""
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            if "vectors" not in file.keys():  # noqa: SIM118 - not a dict
                raise _WrongContentError(f"{path} holds {sorted(file.keys())}; expected a tensor named 'vectors'")
            facts = file.metadata() or {}
            method, passes, seconds = facts.get("method", "file"), facts.get("passes", 0), facts.get("seconds", 0)
            return file.get_tensor("vectors"), *_facts(method, passes, seconds)
    if path.suffix == ".npz":
        arrays = read_npz(path, ("vectors", "method", "passes", "seconds"))
        if "vectors" not in arrays:
            raise _WrongContentError(f"{path} holds no array 'vectors'; expected one of [C, D] numbers")
        method = str(arrays["method"].item()) if "method" in arrays else "file"
        passes, seconds = (arrays[name].item() if name in arrays else 0 for name in ("passes", "seconds"))
        return _matrix(path, arrays["vectors"]), *_facts(method, passes, seconds)
    if path.suffix == ".npy":
        return _matrix(path, read_npy(path)), "file", 0, 0.0
    if path.suffix in (".pth", ".pt"):
        return _read_authors(path), "file", 0, 0.0
    readable = ", ".join((*SUFFIXES, ".pt"))
    raise _WrongContentError(f"cannot read prototypes from {path}; expected a name that ends in {readable}")


def _facts(method: str, passes: Any, seconds: Any) -> tuple[str, int, float]:
    """Method, passes and seconds from a file's metadata. Raises ValueError for damaged ones."""
    count, time = int(passes), float(seconds)
    if len(method) > LONGEST_METHOD or not method.isprintable() or not 0 <= count < 2**63 or not math.isfinite(time):
        raise ValueError(f"its method, passes or seconds are damaged: {method[:LONGEST_METHOD]!r}, {count:g}, {time:g}")
    return method, count, time


def _matrix(path: Path, array: np.ndarray[Any, Any]) -> Tensor:
    """A matrix of real floating-point numbers as a tensor."""
    if array.dtype.kind != "f" or array.ndim != 2:
        raise _WrongContentError(
            f"{path} holds {array.dtype} {list(array.shape)}; expected a matrix of floating-point numbers [C, D]"
        )
    return torch.from_numpy(array if array.dtype.itemsize <= 8 else array.astype(np.float64))


def _read_authors(path: Path) -> Tensor:
    check_torch_archive(path)
    content = torch.load(path, map_location="cpu", weights_only=True)
    w = content.get("w") if isinstance(content, dict) else None
    if not isinstance(w, Tensor) or w.ndim != 2 or w.layout != torch.strided or w.device.type != "cpu":
        raise _WrongContentError(f"{path} holds no matrix 'w'; expected the authors' {{'w': [D, C]}}")
    if w.untyped_storage().nbytes() > path.stat().st_size or w.nbytes > path.stat().st_size:
        raise _WrongContentError(f"{path} claims a 'w' larger than the file; expected the authors' {{'w': [D, C]}}")
    return w.detach().T.contiguous()


def check_shape(prototypes: Prototypes | Tensor, num_classes: int, dim: int) -> Tensor:
    """The vectors [C, D], checked.

    Raises:
        TypeError, ValueError: another shape or dtype, rows that are not unit, a tensor that requires grad.
    """
    vectors = prototypes.vectors if isinstance(prototypes, Prototypes) else prototypes
    check_matrix("prototypes", vectors, min_rows=2)
    if vectors.shape != (num_classes, dim):
        raise ValueError(
            f"prototypes are {shape_of(vectors)}; expected [{num_classes}, {dim}] for {num_classes} classes in "
            f"{dim} dimensions: pass matching ones, or None to estimate them"
        )
    if vectors.requires_grad:
        raise ValueError("prototypes require grad; expected fixed prototypes: pass prototypes.detach()")
    check_unit_rows("prototypes", vectors)
    return vectors
