"""Making, measuring, saving and loading prototypes: C unit vectors spread evenly on the sphere (paper: Section 3.2)."""

from __future__ import annotations

import hashlib
import math
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastproto.checks import check_finite, check_matrix, check_unit_rows, shape_of
from fastproto.files import write_whole
from fastproto.functional import BLOCK, TINY_NORM, gaussian_potential

OBJECTIVES = ("uniform", "max_cosine")
DEFAULT_PASSES = 400
ANNEALING = (1, 4, 16, 64)  # max_cosine: multiples of t; a sharp potential sees only the nearest pairs
RECIPE = 1  # part of the cache's key: raise it when the same arguments begin to give other prototypes


@dataclass(frozen=True)
class Quality:
    """How well prototypes are spread, in float64 and over all pairs i ≠ j; angles in degrees."""

    uniformity: float  # L_uni = log mean exp(-t‖w_i - w_j‖²): lower is better
    uniformity_bound: float  # no C unit vectors have less: the mean cosine is at least -1/(C-1), and exp is convex
    max_cosine: float  # of the closest pair (coherence): lower is better
    max_cosine_bound: float  # no C unit vectors have less (Rankin): -1/(C-1) for C <= D+1, else 0
    mean_max_cosine: float  # mean over points of the cosine to their nearest neighbour
    min_cosine: float
    mean_angle: float  # average pairwise angular distance (APAD)
    t: float


@dataclass(frozen=True)
class Prototypes:
    """Unit vectors with their quality and how they were made."""

    vectors: Tensor  # [C, D] float32, unit rows
    quality: Quality
    method: str  # "polygon", "simplex", "cross_polytope", "descent", "file"
    passes: int  # sweeps over all pairs that were spent

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``.safetensors`` (vectors, quality, method) or ``.npz``; whole or not at all.

        Raises:
            ValueError: another suffix.
        """
        path = Path(path)
        if path.suffix == ".safetensors":
            from safetensors.torch import save

            facts = {"method": self.method, "passes": str(self.passes)}
            facts |= {key: repr(value) for key, value in asdict(self.quality).items()}
            data = save({"vectors": self.vectors.cpu().contiguous()}, metadata=facts)
            write_whole(path, lambda file: file.write_bytes(data))
        elif path.suffix == ".npz":
            write_whole(path, lambda file: _save_npz(file, self))
        else:
            raise ValueError(f"cannot write prototypes to {path}; expected the suffix .safetensors or .npz")


def _save_npz(file: Path, prototypes: Prototypes) -> None:
    with file.open("wb") as out:
        np.savez(out, vectors=prototypes.vectors.cpu().numpy(), method=prototypes.method, passes=prototypes.passes)


# --- closed forms ----------------------------------------------------------------------------------------------------


def _polygon(num_classes: int) -> Tensor:
    angle = torch.arange(num_classes, dtype=torch.float64) * (2 * math.pi / num_classes)
    return torch.stack([angle.cos(), angle.sin()], 1)


def _simplex(num_classes: int, dim: int) -> Tensor:
    """C points with all cosines -1/(C-1), in the first C-1 of D coordinates: row by row, as a Cholesky factor."""
    gram = torch.full((num_classes, num_classes), -1.0 / (num_classes - 1), dtype=torch.float64)
    gram.fill_diagonal_(1.0)
    # The Gram matrix has rank C-1: factor its first C-1 rows; the last point is minus the sum of the others.
    factor = torch.linalg.cholesky(gram[:-1, :-1])
    points = torch.zeros(num_classes, dim, dtype=torch.float64)
    points[:-1, : num_classes - 1] = factor
    points[-1] = -points[:-1].sum(0)
    return points


def _cross_polytope(dim: int) -> Tensor:
    eye = torch.eye(dim, dtype=torch.float64)
    return torch.stack([eye, -eye], 1).flatten(0, 1)


def _closed_form(num_classes: int, dim: int) -> tuple[Tensor, str] | None:
    if num_classes <= dim + 1:
        return _simplex(num_classes, dim), "simplex"
    if dim == 2:
        return _polygon(num_classes), "polygon"
    if num_classes == 2 * dim:
        return _cross_polytope(dim), "cross_polytope"
    return None


# --- descent ---------------------------------------------------------------------------------------------------------


def _descend(w: Tensor, t: float, passes: int, deadline: float | None, progress: bool) -> tuple[Tensor, int]:
    """Momentum descent of L_uni on the sphere, the gradient scaled by C; returns the best points and passes spent."""
    count = len(w)
    rate, velocity = 0.3 * 2 / t, torch.zeros_like(w)
    best, best_value, spent = w, math.inf, 0
    for spent in range(1, passes + 1):
        potential, pull = gaussian_potential(w, t=t)
        total = float(potential.double().sum())
        value = math.log(max(total, 1e-300) / (count * (count - 1)))
        if value < best_value:
            settled = best_value - value < 1e-9 * abs(value)
            best, best_value = w, value
        else:
            settled = rate < 1e-4 * 2 / t
            rate, velocity, w = rate / 2, torch.zeros_like(w), best
        if progress:
            print(
                f"\rprototypes: t = {t:g}, pass {spent} of {passes}, L_uni {best_value:.6f} ", end="", file=sys.stderr
            )
        if settled or (deadline is not None and time.perf_counter() > deadline):
            break
        gradient = (4 * t * count / max(total, 1e-300)) * pull
        velocity = 0.9 * velocity + gradient
        velocity -= (velocity * w).sum(1, keepdim=True) * w
        w = torch.nn.functional.normalize(w - rate * velocity, dim=1)
    return best, spent


def estimate_prototypes(
    num_classes: int,
    dim: int,
    *,
    objective: str = "uniform",
    t: float = 2.0,
    method: str = "auto",
    seed: int = 0,
    device: torch.device | str | None = None,
    max_passes: int | None = None,
    time_limit: float | None = None,
    progress: bool = False,
    cache: bool = True,
) -> Prototypes:
    """C unit vectors spread evenly over the sphere in D dimensions: a closed form where there is one, else descent.

    Args:
        num_classes: C >= 2.
        dim: D >= 2.
        objective: ``uniform`` minimises L_uni at ``t``; ``max_cosine`` then sharpens t: the closest pairs part.
        t: sharpness of the Gaussian potential, > 0.
        method: ``auto``.
        seed: of the random start (closed forms need none).
        device: where the work is done and the vectors end up; None is the CPU.
        max_passes: how many sweeps over all pairs to spend at most, for each t.
        time_limit: seconds; the best so far is returned.
        progress: print a line on standard error.
        cache: keep and reuse the result in ``$XDG_CACHE_HOME/fastproto`` (or ``~/.cache/fastproto``).

    Returns:
        Prototypes with their measured quality.

    Raises:
        ValueError: C < 2, D < 2, t <= 0, unknown objective or method.

    Source: Eq. 4-5 of Saadabadi et al., CVPR 2024.
    """
    if num_classes < 2 or dim < 2:
        raise ValueError(f"num_classes is {num_classes} and dim {dim}; expected both to be at least 2")
    if not 0 < t < math.inf:
        raise ValueError(f"t is {t}; expected a sharpness > 0, such as 2.0")
    if objective not in OBJECTIVES or method != "auto":
        raise ValueError(f"objective is {objective!r} and method {method!r}; expected one of {OBJECTIVES} and 'auto'")
    if max_passes is not None and max_passes < 1:
        raise ValueError(f"max_passes is {max_passes}; expected at least 1")
    closed = _closed_form(num_classes, dim)
    if closed is not None:
        vectors, name = closed
        return _finish(vectors, t, name, 0, device)
    key = (num_classes, dim, objective, t, method, seed, max_passes, RECIPE)
    file = cache_folder() / f"{num_classes}x{dim}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.safetensors"
    if cache and file.exists():
        try:
            return load_prototypes(file, t=t, device=device)
        except ValueError:
            pass  # not ours or damaged: it is made again and replaced
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(num_classes, dim, generator=generator, device="cpu", dtype=torch.float32).to(device or "cpu")
    w = torch.nn.functional.normalize(w, dim=1)
    deadline = None if time_limit is None else time.perf_counter() + time_limit
    passes = 0
    for factor in (1,) if objective == "uniform" else ANNEALING:
        w, spent = _descend(w, factor * t, max_passes or DEFAULT_PASSES, deadline, progress)
        passes += spent
    if progress:
        print(file=sys.stderr)
    found = _finish(w, t, "descent", passes, device)
    if cache and time_limit is None:
        try:
            found.save(file)
        except OSError as error:
            print(f"fastproto: could not write the prototype cache {file} ({error}); going on without", file=sys.stderr)
    return found


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastproto"


def _finish(vectors: Tensor, t: float, method: str, passes: int, device: torch.device | str | None) -> Prototypes:
    vectors = vectors.to(device or "cpu", torch.float32)
    return Prototypes(vectors, measure_prototypes(vectors, t), method, passes)


# --- measuring -------------------------------------------------------------------------------------------------------


def measure_prototypes(vectors: Tensor, t: float = 2.0) -> Quality:
    """Every figure of :class:`Quality` in float64, in memory O(C·D).

    Args:
        vectors: [C, D] rows of any non-zero norm; their directions are measured.
        t: sharpness, > 0.

    Raises:
        TypeError, ValueError: C < 2, D < 2, zero rows, NaN or inf, t <= 0.
    """
    check_matrix("vectors", vectors, min_rows=2)
    check_finite("vectors", vectors)
    w = vectors.detach().double()
    norm = torch.linalg.vector_norm(w, dim=1, keepdim=True)
    if bool((norm <= TINY_NORM).any()):
        raise ValueError(f"vectors row {int(norm.argmin())} is zero; expected rows with a direction: replace the row")
    w = w / norm
    count, dim = w.shape
    pairs = count * (count - 1)
    total = float(gaussian_potential(w, t=t)[0].sum())
    nearest = torch.empty(count, dtype=torch.float64, device=w.device)
    lowest, angles = math.inf, 0.0
    for start in range(0, count, BLOCK):
        block = (w[start : start + BLOCK] @ w.T).clamp_(-1, 1)
        at = torch.arange(len(block), device=w.device)
        lowest = min(lowest, float(block.min()))
        block[at, at + start] = 1.0
        angles += float(block.acos().sum())
        block[at, at + start] = -torch.inf
        nearest[start : start + BLOCK] = block.max(1).values
    return Quality(
        uniformity=math.log(total / pairs) if total > 0 else -math.inf,
        uniformity_bound=-2 * t * count / (count - 1),
        max_cosine=float(nearest.max()),
        max_cosine_bound=-1 / (count - 1) if count <= dim + 1 else 0.0,
        mean_max_cosine=float(nearest.mean()),
        min_cosine=lowest,
        mean_angle=math.degrees(angles / pairs),
        t=t,
    )


# --- loading ---------------------------------------------------------------------------------------------------------


def load_prototypes(
    path: str | os.PathLike[str], *, t: float = 2.0, device: torch.device | str | None = None
) -> Prototypes:
    """Read ``.safetensors`` or ``.npz`` of ours, the authors' ``.pth`` (``{'w': [D, C]}``) or HPN's ``.npy`` ([C, D]).

    The rows of foreign files are normalised. Nothing in a file is ever executed (no pickled code).

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown suffix, a damaged file, one that holds something else, NaN, zero rows.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no prototype file {path}; make one with fastproto-prototypes --out {path}")
    try:
        vectors, method, passes = _read(path)
    except ValueError:
        raise
    except Exception as error:  # each format's library has errors of its own for a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} could not be read as prototypes ({reason}); expected a whole {path.suffix} file: make it again"
        ) from error
    check_matrix(str(path), vectors, min_rows=2)
    check_finite(str(path), vectors)
    vectors = vectors.float()
    if path.suffix in (".pth", ".pt", ".npy"):
        norm = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        if bool((norm <= TINY_NORM).any()):
            raise ValueError(f"{path} row {int(norm.argmin())} is zero; expected rows with a direction")
        vectors = vectors / norm
    check_unit_rows(str(path), vectors)
    return _finish(vectors, t, method, passes, device)


def _read(path: Path) -> tuple[Tensor, str, int]:
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            if "vectors" not in file.keys():  # noqa: SIM118 - not a dict
                raise ValueError(f"{path} holds {sorted(file.keys())}; expected a tensor named 'vectors'")
            facts = file.metadata() or {}
            return file.get_tensor("vectors"), facts.get("method", "file"), int(facts.get("passes", 0))
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            if "vectors" not in arrays:
                raise ValueError(f"{path} holds {sorted(arrays)}; expected an array named 'vectors'")
            method = str(arrays["method"]) if "method" in arrays else "file"
            return torch.from_numpy(arrays["vectors"]), method, int(arrays.get("passes", 0))
    if path.suffix == ".npy":
        return torch.from_numpy(np.load(path, allow_pickle=False)), "file", 0
    if path.suffix in (".pth", ".pt"):
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict) or not isinstance(content.get("w"), Tensor) or content["w"].ndim != 2:
            raise ValueError(f"{path} holds no matrix 'w'; expected the authors' {{'w': [D, C]}}")
        return content["w"].detach().T.contiguous(), "file", 0
    raise ValueError(f"cannot read prototypes from {path}; expected .safetensors, .npz, .npy or .pth")


def check_shape(prototypes: Prototypes | Tensor, num_classes: int, dim: int) -> Tensor:
    """The vectors, if they are C unit rows of D numbers."""
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
