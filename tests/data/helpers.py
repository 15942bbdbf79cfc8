"""What several tests of the data need."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from PIL import Image

from fastproto.data import DataSplits, ImagesInMemory, Preprocessing, load_data


def in_memory(splits: DataSplits) -> list[ImagesInMemory]:
    parts = [splits.train, splits.validation, splits.test]
    assert all(isinstance(part, ImagesInMemory) for part in parts)
    return parts  # type: ignore[return-value]


def same(first: DataSplits, second: DataSplits) -> bool:
    pairs = zip(in_memory(first), in_memory(second), strict=True)
    return first.class_names == second.class_names and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in pairs
    )


def paint(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (12, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def image_folder(root: Path, parts: tuple[str, ...] = ("",), per_class: int = 20) -> str:
    for part in parts:
        for label, name in enumerate(("ant", "bee", "cat")):
            for i in range(per_class):
                paint(root / part / name / f"{i:02}.png", (80 * label, 10 * i, 255 if part == "val" else 0))
    return str(root)


def paint_grey(path: Path, grey: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), grey).save(path, "PNG")
    return path


def fill(root: Path, *folders: str, count: int = 3) -> Path:
    for folder in folders:
        for i in range(count):
            paint_grey(root / folder / f"{i}.png")
    return root


def parts(root: Path) -> dict[str, set[str]]:
    """The paths of each part below the root, after a check that paths and labels fit the classes."""
    data = load_data("image-folder", root=str(root))
    for part in (data.train, data.validation, data.test):
        for path, label in zip(part.paths, part.labels.tolist(), strict=True):  # type: ignore[attr-defined]
            assert data.class_names[label] in path.relative_to(root).parts[:-1]
    return named(data, root)


def named(data: DataSplits, root: Path) -> dict[str, set[str]]:
    found = {}
    for name in ("train", "validation", "test"):
        paths = getattr(data, name).paths
        found[name] = {str(path.relative_to(root)) for path in paths}
        assert len(found[name]) == len(paths)
    return found


def everything(root: Path) -> set[str]:
    return set().union(*parts(root).values())


def reader(size: int = 32, channels: int = 1) -> Preprocessing:
    return Preprocessing(size, channels, (0.5,) * channels, (0.5,) * channels)


def through(image: Image.Image, kind: str, **options: object) -> Image.Image:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Image.open(file)
