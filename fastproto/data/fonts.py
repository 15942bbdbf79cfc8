"""Font files: which characters a face has, and pictures of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .optional import require
from .tree import Folder, Leftovers, files_below, print_note

COLLECTIONS = frozenset({".ttc", ".otc"})
SUFFIXES = frozenset({".ttf", ".otf"}) | COLLECTIONS
OUTLINES = ("glyf", "CFF ", "CFF2")
# Controls, formats, spaces, private use, surrogates, unassigned: invisible, or without a standard appearance.
INVISIBLE = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp", "Co", "Cs", "Cn"})
# Em size and baseline as fractions of the picture: capitals with accents and letters with descenders both fit.
EM, BASELINE = 0.8, 0.76


@dataclass(frozen=True)
class Face:
    """One face of a font file: its family from the name table, and the code points of its character map."""

    path: Path
    index: int
    family: str
    characters: frozenset[int]

    def render(self, codes: Sequence[int], size: int) -> Tensor:
        """Light characters on a dark ground: uint8 [len(codes), size, size].

        The em box keeps its scale and the baseline its height, because o and O, or a comma and an apostrophe,
        differ in nothing else; only the horizontal position is centred on the ink.
        """
        image = require("PIL.Image", "the data set 'glyphs'", "pillow")
        draw = require("PIL.ImageDraw", "the data set 'glyphs'", "pillow")
        font = self._font(size)
        canvas = bytearray()
        for code in codes:
            picture = image.new("L", (size, size))
            left, _, right, _ = font.getbbox(chr(code), anchor="ls")
            place = ((size - left - right) / 2, round(BASELINE * size))
            draw.Draw(picture).text(place, chr(code), fill=255, font=font, anchor="ls")
            canvas += picture.tobytes()
        if not canvas:
            return torch.empty(0, size, size, dtype=torch.uint8)
        return torch.frombuffer(canvas, dtype=torch.uint8).view(-1, size, size)

    def _font(self, size: int) -> Any:
        fonts = require("PIL.ImageFont", "the data set 'glyphs'", "pillow")
        try:
            return fonts.truetype(str(self.path), max(round(EM * size), 1), self.index, "", fonts.Layout.BASIC)
        except OSError as error:
            raise _unreadable(self.path, error) from error


def bundled_faces() -> list[Face]:
    """The Unicode text faces that come with matplotlib: DejaVu Sans, Serif and Sans Mono, and STIX General.

    Its other files have a few symbols each or an encoding of their own (Computer Modern, STIXNonUnicode), in which
    a code point does not show the character it stands for.
    """
    matplotlib = require("matplotlib", "the data set 'glyphs'")
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    wanted = ("DejaVuSans", "DejaVuSerif", "STIXGeneral")
    return [
        face
        for path in sorted(folder.glob("*.ttf"))
        if path.name.startswith(wanted) and "Display" not in path.name
        for face in _faces_of(path)
    ]


def faces_in(folder: str) -> list[Face]:
    """Every face with outlines and a Unicode character map in the font files of a folder and its sub-folders.

    One line on standard error names the other files.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no such face, or a font file that cannot be read.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"the folder of fonts {root} does not exist: give a folder of .ttf, .otf or .ttc files")
    left = Leftovers(root)
    files = [file.path for file in files_below(Folder.at(root), left, SUFFIXES)]
    faces = [face for path in files for face in _faces_of(path)]
    if not faces:
        raise ValueError(
            f"the folder {root} has {len(files)} font files, none with outlines and a Unicode character map: "
            "give a folder of .ttf, .otf or .ttc files"
        )
    print_note(f"not used: {left}" if str(left) else "")
    return faces


def _faces_of(path: Path) -> list[Face]:
    tools = require("fontTools.ttLib", "the data set 'glyphs'", "matplotlib")
    try:
        with path.open("rb") as file:  # fontTools would not close a file that it rejects
            if path.suffix.lower() in COLLECTIONS:
                fonts = tools.TTCollection(file, lazy=True).fonts
            else:
                fonts = [tools.TTFont(file, lazy=True)]
            found = [_face(path, index, font) for index, font in enumerate(fonts)]
    except Exception as error:  # fontTools raises struct.error, KeyError, AssertionError, ... on damaged files
        raise _unreadable(path, error) from error
    return [face for face in found if face.characters]


def _face(path: Path, index: int, font: Any) -> Face:
    names = font["name"]
    # Name 16 is the typographic family, present where name 1 splits a family into groups of four styles.
    family = names.getDebugName(16) or names.getDebugName(1) or path.stem
    mapping = font.getBestCmap() or {} if any(table in font for table in OUTLINES) else {}
    visible = (
        code
        for code, glyph in mapping.items()
        if glyph != ".notdef" and unicodedata.category(chr(code)) not in INVISIBLE
    )
    return Face(path, index, family, frozenset(visible))


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(f"the font file {path} cannot be read ({error}): replace the file or remove it from the folder")
