"""Chooses characters that are visible and distinguishable in print, one class each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .fonts import Face

# Pictures are compared at this size whatever size is trained on, so that the classes do not depend on it.
SIZE = 32
# |a - b|^2 / max(|a|^2, |b|^2). A capital and its accented form are about 0.03 to 0.1 apart, two drawings of one shape
# (hyphens, or Latin, Greek and Cyrillic A) 0 to 0.01.
THRESHOLD = 0.02
# Characters compared in one step: as many as are still wanted plus SPARE for rejected ones, at most CHUNK.
CHUNK, SPARE = 1024, 64


@dataclass(frozen=True)
class Alphabet:
    """Chosen code points, and for every face bool [len(codes)]: whether it shows the character."""

    codes: list[int]
    present: Mapping[Face, Tensor]


@dataclass
class _Kept:
    """The characters chosen so far in one face: pictures [n, SIZE * SIZE], and bool [n], whether it shows them."""

    pictures: Tensor = field(default_factory=lambda: torch.empty(0, SIZE * SIZE))
    present: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.bool))

    def extend(self, pictures: Tensor, present: Tensor) -> None:
        self.pictures = torch.cat([self.pictures, pictures])
        self.present = torch.cat([self.present, present])


def choose_characters(faces: Sequence[Face], train: Sequence[Face], test: Sequence[Face], limit: int) -> Alphabet:
    """The first ``limit`` characters, in order of preference, that look unlike all before them.

    Preference: in more families, then in more faces, then the lower code point. Every character is in at least one
    training face and, if there are any, one test face.

    Two characters look alike if, in any family, at least half of the faces that have both draw them alike: then that
    family cannot tell them apart, and one picture must not belong to two classes. The less preferred one is left out.
    """
    families = {face: face.family for face in faces}
    kept = {face: _Kept() for face in faces}
    codes: list[int] = []
    ranked = _by_preference(faces, train, test)
    start = 0
    while start < len(ranked) and len(codes) < limit:
        chunk = ranked[start : start + min(CHUNK, limit - len(codes) + SPARE)]
        start += len(chunk)
        shown = {face: _show(face, chunk) for face in faces}
        new = _in_any(train, shown) & (_in_any(test, shown) if test else True)
        alike = torch.zeros(len(chunk), len(codes) + len(chunk), dtype=torch.bool)
        for family in dict.fromkeys(families.values()):
            alike |= _alike_in_family([(kept[f], *shown[f]) for f in faces if families[f] == family])
        picked = _pick_unlike(alike, new, limit - len(codes))
        codes += [chunk[i] for i in picked]
        for face, (pictures, present) in shown.items():
            kept[face].extend(pictures[picked], present[picked])
    return Alphabet(codes, {face: kept[face].present for face in faces})


def _by_preference(faces: Sequence[Face], train: Sequence[Face], test: Sequence[Face]) -> list[int]:
    eligible = frozenset().union(*(face.characters for face in train))
    if test:
        eligible &= frozenset().union(*(face.characters for face in test))
    in_faces: dict[int, int] = dict.fromkeys(eligible, 0)
    in_families: dict[int, set[str]] = {code: set() for code in eligible}
    for face in faces:
        for code in face.characters & eligible:
            in_faces[code] += 1
            in_families[code].add(face.family)
    return sorted(eligible, key=lambda code: (-len(in_families[code]), -in_faces[code], code))


def _show(face: Face, chunk: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Pictures float [n, SIZE * SIZE], and bool [n]: present, and neither blank nor the box for missing glyphs."""
    has = torch.tensor([code in face.characters for code in chunk])
    pictures = torch.zeros(len(chunk), SIZE * SIZE)
    rendered = face.render([code for code in chunk if code in face.characters], SIZE)
    pictures[has] = rendered.flatten(1).float() / 255
    # U+10FFFF is no character and never will be: a face draws it as its missing glyph.
    missing = face.render([0x10FFFF], SIZE).flatten(1).float() / 255
    return pictures, has & pictures.any(1) & (pictures != missing).any(1)


def _in_any(faces: Sequence[Face], shown: Mapping[Face, tuple[Tensor, Tensor]]) -> Tensor:
    return torch.stack([shown[face][1] for face in faces]).any(0)


def _alike_in_family(members: Sequence[tuple[_Kept, Tensor, Tensor]]) -> Tensor:
    """bool [n, k + n]: whether a character of the chunk looks like a kept one or one of the chunk, in one family."""
    votes = voters = torch.zeros((), dtype=torch.int32)
    for kept, pictures, present in members:
        others = torch.cat([kept.pictures, pictures])
        both = present[:, None] & torch.cat([kept.present, present])[None]
        energy, other_energy = pictures.square().sum(1)[:, None], others.square().sum(1)[None]
        distance = energy + other_energy - 2 * (pictures @ others.T)
        votes = votes + (both & (distance < THRESHOLD * torch.maximum(energy, other_energy)))
        voters = voters + both
    return (votes > 0) & (2 * votes >= voters)


def _pick_unlike(alike: Tensor, new: Tensor, limit: int) -> list[int]:
    """Usable rows of the chunk, in order, that look unlike everything kept or picked before."""
    before = alike.shape[1] - len(alike)
    usable = (new & ~alike[:, :before].any(1)).tolist()
    within = alike[:, before:].numpy()
    picked: list[int] = []
    for row in range(len(alike)):
        if len(picked) == limit:
            break
        if usable[row] and not within[row, picked].any():
            picked.append(row)
    return picked
