"""Class means, prototypes and assignment of every renewal, in ``RUN/class_means/STEP.npz``."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from fastproto.head import PrototypeHead
from fastproto.support.array_files import Array, read_npz
from fastproto.support.atomic_files import write_memory

SAVED = {"class_means": ("float32", 2), "prototypes": ("float32", 2), "assignment": ("int64", 1)}


def save_class_means(folder: Path, step: int, head: PrototypeHead) -> None:
    """Write class means, prototypes and assignment before a renewal to ``folder/STEP.npz``."""
    folder.mkdir(exist_ok=True)
    content = io.BytesIO()  # on a full disk savez leaves its archive open, and Python warns of it at exit
    np.savez(content, **{name: getattr(head, name).cpu().numpy() for name in SAVED})
    write_memory(folder / f"{step:08d}.npz", content)


def read_class_means(run: Path) -> dict[str, Array]:
    """Read the states that a run with ``head.save_class_means`` saved, stacked in the order of the renewals.

    Args:
        run: the run folder.

    Returns:
        ``step`` [R] int64, ``class_means`` [R, C, D] and ``prototypes`` [R, C, D] float32, ``assignment`` [R, C] int64:
        the state before each of the R renewals.

    Raises:
        FileNotFoundError: the run saved none.
        ValueError: a damaged file, or arrays with other names, dtypes or shapes.
    """
    files = sorted(path for path in (run / "class_means").glob("*.npz") if path.stem.isdecimal())
    if not files:
        raise FileNotFoundError(f"{run} holds no class_means/*.npz; expected a run with --head.save_class_means true")
    read = [_read_saved(file) for file in files]
    for file, arrays in zip(files, read, strict=True):
        if arrays["class_means"].shape != read[0]["class_means"].shape:
            raise ValueError(f"{file} and {files[0]} have class means of unequal shapes; expected those of one run")
    stacked = {name: np.stack([arrays[name] for arrays in read]) for name in SAVED}
    return {"step": np.array([int(file.stem) for file in files])} | stacked


def _read_saved(file: Path) -> dict[str, Array]:
    try:
        arrays = read_npz(file, tuple(SAVED))
    except ValueError as error:
        raise ValueError(
            f"{file} could not be read as class means ({error}); expected a whole .npz of a run"
        ) from error
    held = {name: (array.dtype.name, array.ndim) for name, array in arrays.items()}
    shapes = {array.shape for name, array in arrays.items() if name != "assignment"}
    if held != SAVED or len(shapes) > 1 or arrays["assignment"].shape != arrays["class_means"].shape[:1]:
        raise ValueError(
            f"{file} holds {', '.join(f'{name} {array.dtype} {list(array.shape)}' for name, array in arrays.items())}; "
            "expected class_means and prototypes float32 [C, D] and assignment int64 [C]"
        )
    return arrays
