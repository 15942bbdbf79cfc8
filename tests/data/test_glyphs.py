"""The glyphs data set: fonts, families that are held out, characters that look alike."""

from __future__ import annotations

import shutil
from pathlib import Path

import matplotlib
import pytest
import torch
from fontTools.ttLib import TTCollection, TTFont

from fastproto.data import (
    DataSplits,
    load_data,
)
from fastproto.data.fonts import Face, bundled_faces, faces_in
from fastproto.data.glyphs import Roles, share_faces
from fastproto.data.lookalikes import choose_characters

from .helpers import in_memory, same

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def font_folder(target: Path, *names: str) -> str:
    target.mkdir()
    for name in names:
        shutil.copy(FONTS / f"{name}.ttf", target)
    return str(target)


@pytest.fixture(scope="module")
def glyphs() -> DataSplits:
    return load_data("glyphs", num_classes=80)


@pytest.fixture(scope="module")
def roles() -> Roles:
    return share_faces(bundled_faces())


def test_glyphs_have_every_class_in_every_part(glyphs: DataSplits) -> None:
    assert len(glyphs.class_names) == 80
    assert "A U+0041" in glyphs.class_names and "a U+0061" in glyphs.class_names
    for part in in_memory(glyphs):
        assert part.images.shape[1:] == (1, 32, 32)
        assert part.labels.unique().tolist() == list(range(80))
        assert bool(part.images.flatten(1).any(1).all())
    assert glyphs.augmentation is not None
    assert glyphs.augmentation(torch.rand(2, 1, 32, 32)).shape == (2, 1, 32, 32)


def test_glyphs_hold_out_whole_families(roles: Roles) -> None:
    families = [{face.family for face in part} for part in (roles.train, roles.validation, roles.test)]
    assert families == [{"DejaVu Sans", "STIXGeneral"}, {"DejaVu Sans Mono"}, {"DejaVu Serif"}]
    assert [len(part) for part in (roles.train, roles.validation, roles.test)] == [8, 4, 4]


def test_glyphs_are_the_same_every_time_and_grow_from_the_front(glyphs: DataSplits) -> None:
    assert same(glyphs, load_data("glyphs", num_classes=80))
    small = load_data("glyphs", num_classes=20, image_size=16)
    assert small.class_names == glyphs.class_names[:20]
    assert in_memory(small)[0].images.shape[1:] == (1, 16, 16)


def test_fonts_with_an_encoding_of_their_own_are_left_out() -> None:
    names = {face.path.name for face in bundled_faces()}
    assert "DejaVuSans.ttf" in names
    assert not any(name.startswith(("cm", "STIXNon", "STIXSiz", "Last")) for name in names)


def test_rendering_keeps_size_and_height_within_the_em_box(roles: Roles) -> None:
    face = roles.train[0]
    rows = face.render([ord(c) for c in "oO,'"], 32).any(2).int()
    top, height = rows.argmax(1), rows.sum(1)
    assert int(height[0]) < int(height[1])
    assert int(top[3]) < int(top[0]) < int(top[2])
    columns = face.render([ord("I"), ord("j")], 32).any(1).int()
    middle = columns.argmax(1) + columns.sum(1) / 2
    assert float((middle - 16).abs().max()) <= 1
    assert face.render([], 32).shape == (0, 32, 32)


def choose(faces: list[Face], text: str) -> str:
    """Characters of ``text`` that become classes, among the faces cut down to them."""
    wanted = frozenset(map(ord, text))
    cut = [Face(f.path, f.index, f.family, f.characters & wanted) for f in faces]
    return "".join(map(chr, choose_characters(cut, cut, [], 100).codes))


def test_characters_that_look_alike_are_one_class(roles: Roles) -> None:
    faces = [*roles.train, *roles.test]
    assert choose(faces, "AΑАBΒВ") == "AB"  # Latin, Greek, Cyrillic
    assert choose(faces, "-‐‑") in set("-‐‑")
    assert choose(faces, "oOcCxX.,'") == "',.COXcox"
    assert choose(faces, "aàáâãäåāăą") == "aàáâãäåāăą"


def test_characters_without_a_picture_are_left_out(roles: Roles) -> None:
    # A space, a soft hyphen and a letter that no face has, claimed by a character map that lies.
    face = roles.train[0]
    assert not face.characters & {0x20, 0xAD, 0xA0}
    lying = Face(face.path, 0, "lies", frozenset({0x20, ord("a"), 0x20000}))
    assert choose_characters([lying], [lying], [], 10).codes == [ord("a")]


def test_a_character_must_be_in_a_training_and_a_test_face(roles: Roles) -> None:
    train = Face(roles.train[0].path, 0, "one", frozenset(map(ord, "abc")))
    test = Face(roles.test[0].path, 0, "two", frozenset(map(ord, "bcd")))
    alphabet = choose_characters([train, test], [train], [test], 10)
    assert alphabet.codes == [ord("b"), ord("c")]
    assert alphabet.present[test].tolist() == [True, True]


def test_two_families_hold_out_one_and_a_face_of_the_other(tmp_path: Path) -> None:
    folder = font_folder(tmp_path / "fonts", "DejaVuSans", "DejaVuSans-Oblique", "DejaVuSerif")
    roles = share_faces(faces_in(folder))
    assert [[f.path.stem for f in part] for part in (roles.train, roles.validation, roles.test)] == [
        ["DejaVuSans"],
        ["DejaVuSans-Oblique"],
        ["DejaVuSerif"],
    ]


def test_faces_of_one_family_are_held_out_face_by_face(tmp_path: Path) -> None:
    folder = font_folder(tmp_path / "fonts", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic")
    roles = share_faces(faces_in(folder))
    assert [len(part) for part in (roles.train, roles.validation, roles.test)] == [1, 1, 1]
    assert len({face.path for part in (roles.train, roles.validation, roles.test) for face in part}) == 3


def test_a_tenth_of_many_families_is_held_out(roles: Roles) -> None:
    face = roles.train[0]
    many = [Face(face.path, 0, f"family {i}", frozenset(range(33, 100 - i))) for i in range(40)]
    shared = share_faces(many)
    assert [len(part) for part in (shared.train, shared.validation, shared.test)] == [32, 4, 4]
    assert shared.train[0].family == "family 0"


def test_a_single_face_is_tested_on_jittered_pictures(tmp_path: Path) -> None:
    folder = font_folder(tmp_path / "fonts", "DejaVuSans")
    torch.manual_seed(3)
    before = torch.get_rng_state()
    splits = load_data("glyphs", num_classes=30, fonts=folder)
    assert torch.equal(torch.get_rng_state(), before)
    train, validation, test = in_memory(splits)
    assert (len(train), len(validation), len(test)) == (30, 120, 120)
    assert not torch.equal(validation.images, test.images)
    assert same(splits, load_data("glyphs", num_classes=30, fonts=folder))


def test_collections_give_all_their_faces(tmp_path: Path) -> None:
    names = ("DejaVuSansDisplay", "DejaVuSerifDisplay")
    collection = TTCollection()
    collection.fonts = [TTFont(FONTS / f"{name}.ttf") for name in names]
    collection.save(tmp_path / "both.ttc")
    together = faces_in(str(tmp_path))  # before the next line adds a folder below this one
    apart = faces_in(font_folder(tmp_path / "apart", *names))
    for font in collection.fonts:
        font.close()
    assert [(face.path.name, face.index) for face in together] == [("both.ttc", 0), ("both.ttc", 1)]
    for inside, alone in zip(together, apart, strict=True):
        codes = sorted(alone.characters)[:5]
        assert (inside.family, inside.characters) == (alone.family, alone.characters)
        assert torch.equal(inside.render(codes, 24), alone.render(codes, 24))


def test_more_characters_than_there_are_says_how_many(tmp_path: Path) -> None:
    folder = font_folder(tmp_path / "fonts", "DejaVuSerifDisplay")
    with pytest.raises(ValueError, match=r"num_classes=5000, but the fonts have (\d+) characters .* give at most \1"):
        load_data("glyphs", num_classes=5000, fonts=folder)


def test_fonts_among_other_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(font_folder(tmp_path / "fonts", "DejaVuSans"))
    (folder / "._DejaVuSans.ttf").write_bytes(b"AppleDouble")
    (folder / "licence.txt").write_text("x")
    (folder / "again").symlink_to(folder)
    (folder / "same.ttf").symlink_to("DejaVuSans.ttf")
    assert [face.path.name for face in faces_in(str(folder))] == ["DejaVuSans.ttf"]
    line = capsys.readouterr().err
    assert line.startswith("note: not used: 1 hidden file (._DejaVuSans.ttf), ") and line.count("\n") == 1
    assert "1 link to a folder above it (again)" in line and "1 file of unknown kind (licence.txt)" in line


def test_bad_font_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"does not exist: give a folder of \.ttf"):
        load_data("glyphs", fonts=str(tmp_path / "none"))
    with pytest.raises(ValueError, match="has 0 font files"):
        load_data("glyphs", fonts=str(tmp_path))
    (tmp_path / "broken.ttf").write_bytes(b"no font at all")
    with pytest.raises(ValueError, match=r"broken.ttf cannot be read .* replace the file or remove it"):
        load_data("glyphs", fonts=str(tmp_path))
