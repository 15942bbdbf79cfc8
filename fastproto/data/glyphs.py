"""Printed characters rendered from font files: one class per Unicode character, tested on held-out font families."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .augment import AffineJitter
from .fonts import Face, bundled_faces, faces_in
from .lookalikes import Alphabet, choose_characters
from .preprocessing import Preprocessing, pixel_statistics
from .splits import DataSplits, ImagesInMemory

DEFAULT_CLASSES, DEFAULT_SIZE = 200, 32
COPIES = 4


@dataclass(frozen=True)
class Roles:
    """The faces of each split."""

    train: tuple[Face, ...]
    validation: tuple[Face, ...]
    test: tuple[Face, ...]


def load_glyphs(num_classes: int | None = None, image_size: int | None = None, fonts: str | None = None) -> DataSplits:
    """Characters as light strokes on a dark ground; `share_faces` says which faces are held out.

    A validation or test split without faces of its own (fonts of one or two faces) consists of rotated, scaled and
    shifted pictures of the training faces, the same on every call; it does not measure transfer to another font.

    Args:
        num_classes: how many characters, the most widely covered first (then by code point); None: 200.
        image_size: height and width; None: 32.
        fonts: folder of .ttf, .otf or .ttc files, searched with its sub-folders; None: the fonts of matplotlib.

    Raises:
        ValueError: more classes than the fonts have characters that look different, or fonts that cannot be read.
        FileNotFoundError: no such folder.
    """
    wanted, size = num_classes or DEFAULT_CLASSES, image_size or DEFAULT_SIZE
    roles = share_faces(bundled_faces() if fonts is None else faces_in(fonts))
    alphabet = choose_characters([*roles.train, *roles.validation, *roles.test], roles.train, roles.test, wanted)
    available = len(alphabet.codes)
    if available < wanted:
        raise ValueError(
            f"num_classes={wanted}, but the fonts have {available} characters that look different and are both "
            f"trained on and tested: give at most {available}, or more fonts"
        )
    augmentation = AffineJitter(rotation=5, scale=0.12, shear=8, translation=0.05)
    train = render_faces(roles.train, alphabet, size)
    validation, test = (
        render_faces(faces, alphabet, size) if faces else jittered(train, augmentation, seed)
        for faces, seed in ((roles.validation, 1), (roles.test, 2))
    )
    mean, std = pixel_statistics(train.images)
    return DataSplits(
        train=train,
        validation=validation,
        test=test,
        class_names=tuple(f"{chr(code)} U+{code:04X}" for code in alphabet.codes),
        preprocessing=Preprocessing(size, 1, mean, std, light_on_dark=True),
        augmentation=augmentation,
    )


def share_faces(faces: Sequence[Face]) -> Roles:
    """Hold out whole families, so that no style of a tested family is trained on.

    Families are ranked by how many characters they have. The first is trained on, the next tenth of the families (at
    least one) is the test split, the tenth after that (at least one) validation, and the rest is trained on too. Faces
    of a single family are ranked one by one instead. With two groups, validation is the last face of the first, if it
    has several. Splits without a face are empty.
    """
    by_family: dict[str, list[Face]] = {}
    for face in faces:
        by_family.setdefault(face.family, []).append(face)
    groups = list(by_family.values()) if len(by_family) > 1 else [[face] for face in faces]
    for group in groups:
        group.sort(key=lambda face: (-len(face.characters), str(face.path), face.index))
    groups.sort(key=lambda group: (-len(frozenset().union(*(face.characters for face in group))), str(group[0].path)))

    tenth = max(1, len(groups) // 10)
    first, test, validation = groups[0], groups[1 : 1 + tenth], groups[1 + tenth : 1 + 2 * tenth]
    if len(groups) == 2 and len(first) > 1:
        validation = [[first.pop()]]
    train = [first, *groups[1 + 2 * tenth :]]
    parts = (tuple(face for group in part for face in group) for part in (train, validation, test))
    return Roles(*parts)


def render_faces(faces: Sequence[Face], alphabet: Alphabet, size: int) -> ImagesInMemory:
    """Every character of the alphabet in every given face that has it."""
    images, labels = [], []
    for face in faces:
        present = alphabet.present[face].nonzero().flatten()
        images.append(face.render([alphabet.codes[i] for i in present.tolist()], size))
        labels.append(present)
    return ImagesInMemory(torch.cat(images).unsqueeze(1), torch.cat(labels))


def jittered(source: ImagesInMemory, jitter: AffineJitter, seed: int) -> ImagesInMemory:
    """`COPIES` randomly changed copies of every picture; torch's global generator is left as it was."""
    copies: list[Tensor] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(COPIES):
            copies.append(jitter(source.images.float()).round().clamp(0, 255).to(torch.uint8))
    return ImagesInMemory(torch.cat(copies), source.labels.repeat(COPIES))
