"""Data sets: shapes, splits that are disjoint and the same on every run, and an error for every bad input."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import pytest
import torch
from fontTools.ttLib import TTCollection, TTFont
from PIL import Image, ImageDraw
from torch import Tensor
from torch.utils.data import DataLoader

from fastproto.data import (
    DATASETS,
    AffineJitter,
    DataSplits,
    ImagesInMemory,
    Preprocessing,
    collate,
    load_data,
)
from fastproto.data.fonts import Face, bundled_faces, faces_in
from fastproto.data.glyphs import Roles, share_faces
from fastproto.data.lookalikes import choose_characters
from fastproto.data.splits import hold_out

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tensors here are tiny: on a busy machine threads wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def in_memory(splits: DataSplits) -> list[ImagesInMemory]:
    parts = [splits.train, splits.validation, splits.test]
    assert all(isinstance(part, ImagesInMemory) for part in parts)
    return parts  # type: ignore[return-value]


def same(first: DataSplits, second: DataSplits) -> bool:
    pairs = zip(in_memory(first), in_memory(second), strict=True)
    return first.class_names == second.class_names and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in pairs
    )


def font_folder(target: Path, *names: str) -> str:
    target.mkdir()
    for name in names:
        shutil.copy(FONTS / f"{name}.ttf", target)
    return str(target)


def paint(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (12, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def image_folder(root: Path, parts: tuple[str, ...] = ("",), per_class: int = 20) -> str:
    for part in parts:
        for label, name in enumerate(("ant", "bee", "cat")):
            for i in range(per_class):
                paint(root / part / name / f"{i:02}.png", (80 * label, 10 * i, 255 if part == "val" else 0))
    return str(root)


# ---- parts and batches ----


def test_hold_out_takes_the_same_part_of_every_class() -> None:
    labels = torch.arange(5).repeat_interleave(torch.tensor([2, 3, 10, 40, 100]))[torch.randperm(155)]
    kept, held = hold_out(labels, 0.25, seed=3)
    assert torch.equal(torch.cat([kept, held]).sort().values, torch.arange(155))
    assert torch.bincount(labels[held]).tolist() == [1, 1, 2, 10, 25]
    again = hold_out(labels, 0.25, seed=3)
    assert torch.equal(again[1], held)
    assert not torch.equal(hold_out(labels, 0.25, seed=4)[1], held)
    with pytest.raises(ValueError, match="class 1 has 1 picture"):
        hold_out(torch.tensor([0, 0, 1]), 0.5, seed=0)


def test_images_in_memory_batch_at_once_and_one_by_one() -> None:
    images = torch.randint(0, 256, (10, 3, 4, 4), dtype=torch.uint8)
    data = ImagesInMemory(images, torch.arange(10))
    assert len(data) == 10
    at_once = collate(data.__getitems__([3, 1, 1]))
    one_by_one = collate([data[3], data[1], data[1]])
    for batch in (at_once, one_by_one):
        assert torch.equal(batch[0], images[[3, 1, 1]])
        assert torch.equal(batch[1], torch.tensor([3, 1, 1]))
    batches = list(DataLoader(data, batch_size=4, collate_fn=collate))
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    assert torch.equal(torch.cat([pictures for pictures, _ in batches]), images)


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64), r"images are torch.float32 .* give uint8"),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), r"give uint8 \[N, channels"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), r"give int64 \[2\]"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2), r"labels are torch.float32"),
    ],
)
def test_images_in_memory_refuse_other_types(images: Tensor, labels: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ImagesInMemory(images, labels)


# ---- preprocessing ----


def test_preprocessing_survives_json() -> None:
    before = Preprocessing(32, 3, (0.1, 0.2, 0.3), (1.0, 2.0, 3.0), light_on_dark=True)
    assert Preprocessing.from_dict(json.loads(json.dumps(before.to_dict()))) == before
    with pytest.raises(ValueError, match=r"got the keys \['image_size'\]: expected"):
        Preprocessing.from_dict({"image_size": 3})


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
@pytest.mark.parametrize("channels", [1, 3])
def test_read_takes_every_mode(mode: str, channels: int) -> None:
    reader = Preprocessing(8, channels, (0.5,) * channels, (0.5,) * channels)
    pixels = reader.read(Image.new("RGB", (20, 11), "white").convert(mode))
    assert pixels.dtype == torch.uint8 and pixels.shape == (channels, 8, 8)
    assert int(pixels.min()) >= 254


def test_read_scales_the_shorter_side_and_crops_the_centre() -> None:
    image = Image.new("RGB", (40, 10), "black")
    ImageDraw.Draw(image).rectangle((15, 0, 24, 9), fill="white")
    assert int(Preprocessing(10, 1, (0.0,), (1.0,)).read(image).min()) == 255


def test_read_keeps_pixels_of_the_right_size() -> None:
    pixels = torch.randint(0, 256, (5, 5, 3), dtype=torch.uint8)
    image = Image.fromarray(pixels.numpy())
    assert torch.equal(Preprocessing(5, 3, (0.0,) * 3, (1.0,) * 3).read(image), pixels.permute(2, 0, 1))


def test_read_turns_transparency_white_and_photographs_upright() -> None:
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert int(Preprocessing(4, 1, (0.0,), (1.0,)).read(clear).min()) == 255
    sideways = Image.new("L", (2, 2), 0)
    sideways.putpixel((0, 0), 255)
    sideways.getexif()[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    assert Preprocessing(2, 1, (0.0,), (1.0,)).read(sideways)[0].tolist() == [[0, 255], [0, 0]]


def test_light_on_dark_reads_ink_and_chalk_alike() -> None:
    ink = Image.new("L", (8, 8), 255)
    ImageDraw.Draw(ink).rectangle((3, 1, 4, 6), fill=0)
    chalk = Image.eval(ink, lambda value: 255 - value)
    reader = Preprocessing(8, 1, (0.0,), (1.0,), light_on_dark=True)
    assert torch.equal(reader.read(ink), reader.read(chalk))
    assert int(reader.read(ink)[0, 3, 3]) == 255


def test_normalise_centres_and_checks() -> None:
    reader = Preprocessing(2, 3, (0.1, 0.2, 0.3), (1.0, 2.0, 4.0))
    images = torch.rand(5, 3, 2, 2, dtype=torch.float64)
    expected = torch.stack([(images[:, c] - m) / s for c, (m, s) in enumerate(((0.1, 1), (0.2, 2), (0.3, 4)))], dim=1)
    torch.testing.assert_close(reader.normalise(images), expected)
    for bad in (torch.zeros(1, 3, 2, 2, dtype=torch.uint8), torch.zeros(1, 1, 2, 2), torch.zeros(3, 2, 2)):
        with pytest.raises(ValueError, match=r"give floating point \[B, 3, H, W\]"):
            reader.normalise(bad)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, 1, (0.0,), (1.0,)), "image_size=0"),
        ((8, 2, (0.0,) * 2, (1.0,) * 2), "channels=2"),
        ((8, 3, (0.0,), (1.0,)), "give 3 of each"),
        ((8, 1, (0.0,), (0.0,)), "std > 0"),
    ],
)
def test_preprocessing_refuses_nonsense(arguments: tuple[int, int, tuple[float], tuple[float]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Preprocessing(*arguments)


# ---- augmentation ----


def test_jitter_of_nothing_and_in_evaluation_changes_nothing() -> None:
    images = torch.rand(4, 3, 9, 7)
    torch.testing.assert_close(AffineJitter()(images), images)
    strong = AffineJitter(rotation=90, scale=0.5, shear=20, translation=0.5, flip=0.5)
    assert strong.eval()(images) is images
    assert strong.train()(images[:0]).shape == (0, 3, 9, 7)


def test_jitter_differs_by_picture_and_follows_the_global_seed() -> None:
    images = torch.rand(1, 1, 16, 16).expand(6, -1, -1, -1)
    jitter = AffineJitter(rotation=10, scale=0.1, shear=5, translation=0.1)
    torch.manual_seed(5)
    first = jitter(images)
    torch.manual_seed(5)
    assert torch.equal(jitter(images), first)
    assert not torch.equal(jitter(images), first)
    assert not torch.equal(first[0], first[1])
    assert first.shape == images.shape and float(first.min()) >= 0 and float(first.max()) <= 1


def test_jitter_flips_and_repeats_the_border() -> None:
    images = torch.rand(3, 2, 5, 6)
    torch.testing.assert_close(AffineJitter(flip=1.0)(images), images.flip(3))
    flat = torch.full((8, 1, 6, 6), 0.7)
    torch.testing.assert_close(AffineJitter(rotation=45, scale=0.5, shear=30, translation=0.9)(flat), flat)


def test_jitter_shift_is_within_its_limit() -> None:
    images = torch.zeros(200, 1, 21, 21)
    images[:, :, 10, 10] = 1
    torch.manual_seed(0)
    moved = AffineJitter(translation=0.2)(images)[:, 0]
    columns = (moved.sum(1) * torch.arange(21)).sum(1) / moved.sum((1, 2))
    assert float((columns - 10).abs().max()) <= 0.2 * 21 + 1e-3
    assert float((columns - 10).abs().max()) > 0.15 * 21


@pytest.mark.parametrize("bad", [{"rotation": -1}, {"scale": 1.0}, {"flip": 1.5}, {"translation": float("nan")}])
def test_jitter_refuses_limits_out_of_range(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"AffineJitter got {next(iter(bad))}="):
        AffineJitter(**bad)


# ---- digits ----


def test_digits_have_stratified_disjoint_parts() -> None:
    splits = load_data("digits")
    train, validation, test = in_memory(splits)
    assert train.images.shape[1:] == (1, 8, 8)
    assert len(train) + len(validation) + len(test) == 1797
    assert abs(len(test) / 1797 - 0.25) < 0.005
    for part in (train, validation, test):
        shares = torch.bincount(part.labels, minlength=10) / len(part)
        assert float((shares - 0.1).abs().max()) < 0.02
        assert int(part.images.max()) == 255 and int(part.images.min()) == 0
    pictures = [{bytes(image.numpy().tobytes()) for image in part.images} for part in (train, validation, test)]
    assert not pictures[0] & pictures[1] and not pictures[0] & pictures[2] and not pictures[1] & pictures[2]
    assert splits.class_names == tuple("0123456789")
    normal = splits.preprocessing.normalise(train.images.double() / 255)
    assert abs(float(normal.mean())) < 1e-4 and abs(float(normal.std()) - 1) < 1e-3


def test_digits_are_the_same_every_time() -> None:
    assert same(load_data("digits"), load_data("digits"))


def test_digits_in_another_size() -> None:
    splits = load_data("digits", image_size=12, num_classes=10)
    assert in_memory(splits)[0].images.shape[1:] == (1, 12, 12)
    assert splits.preprocessing.image_size == 12


# ---- glyphs ----


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


# ---- image folders ----


def test_flat_folder_is_split_the_same_every_time(tmp_path: Path) -> None:
    root = image_folder(tmp_path)
    splits, again = (load_data("image-folder", root=root) for _ in range(2))
    parts = [splits.train, splits.validation, splits.test]
    assert [len(part) for part in parts] == [45, 6, 9]
    paths = [path for part in parts for path in part.paths]  # type: ignore[attr-defined]
    assert len(set(paths)) == 60
    assert paths == [p for part in (again.train, again.validation, again.test) for p in part.paths]  # type: ignore[attr-defined]
    assert splits.class_names == ("ant", "bee", "cat")
    assert splits.preprocessing.image_size == 10
    image, label = splits.test[0]
    assert image.dtype == torch.uint8 and image.shape == (3, 10, 10)
    assert label.dtype == torch.int64 and int(image[0, 0, 0]) == 80 * int(label)
    images, labels = next(iter(DataLoader(splits.train, batch_size=4, collate_fn=collate)))
    assert images.shape == (4, 3, 10, 10) and labels.shape == (4,)


def test_folder_with_train_and_val_tests_on_val(tmp_path: Path) -> None:
    splits = load_data("image-folder", root=image_folder(tmp_path, ("train", "val")))
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [54, 6, 60]
    assert {int(splits.test[i][0][2, 0, 0]) for i in range(60)} == {255}
    assert {int(splits.validation[i][0][2, 0, 0]) for i in range(6)} == {0}


def test_folder_with_three_parts_keeps_them(tmp_path: Path) -> None:
    root = image_folder(tmp_path, ("train", "val", "test"), per_class=2)
    splits = load_data("image-folder", root=root)
    for part, name in ((splits.train, "train"), (splits.validation, "val"), (splits.test, "test")):
        assert len(part) == 6
        assert all(path.parts[-3] == name for path in part.paths)  # type: ignore[attr-defined]


def test_readable_names_first_classes_and_size(tmp_path: Path) -> None:
    root = image_folder(tmp_path)
    (tmp_path / "classes.tsv").write_text("bee\thoney bee, Apis\nant\tblack ant\n", encoding="utf-8")
    (tmp_path / "ant" / "notes.txt").write_text("not a picture", encoding="utf-8")
    splits = load_data("image-folder", root=root, num_classes=2, image_size=16)
    assert splits.class_names == ("black ant", "honey bee, Apis")
    assert splits.train[0][0].shape == (3, 16, 16)
    assert splits.train.labels.unique().tolist() == [0, 1]
    (tmp_path / "classes.tsv").write_text("bee honey\n", encoding="utf-8")
    with pytest.raises(ValueError, match="has a line without a tab"):
        load_data("image-folder", root=root)


def test_large_pictures_are_read_at_224(tmp_path: Path) -> None:
    root = image_folder(tmp_path)
    paint(tmp_path / "cat" / "00.png", (1, 2, 3), size=(65, 65))
    assert load_data("image-folder", root=root).preprocessing.image_size == 224


def test_damaged_pictures_are_named(tmp_path: Path) -> None:
    root = image_folder(tmp_path)
    damaged = tmp_path / "ant" / "05.png"
    damaged.write_bytes(damaged.read_bytes()[:45])
    splits = load_data("image-folder", root=root)
    parts = (splits.train, splits.validation, splits.test)
    with pytest.raises(ValueError, match=r"05\.png cannot be read .* replace the file or delete it"):
        for part in parts:
            for i in range(len(part)):
                part[i]
    (tmp_path / "bee" / "00.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"00\.png cannot be read"):
        load_data("image-folder", root=root)


def test_bad_image_folders(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got no root"):
        load_data("image-folder")
    with pytest.raises(FileNotFoundError, match="does not exist: give a folder with one folder of pictures"):
        load_data("image-folder", root=str(tmp_path / "none"))
    with pytest.raises(ValueError, match="has 0 class folders"):
        load_data("image-folder", root=str(tmp_path))
    root = image_folder(tmp_path / "data", per_class=3)
    with pytest.raises(ValueError, match=r"num_classes=4, but .* has 3 class folders: give 2 to 3"):
        load_data("image-folder", root=root, num_classes=4)
    (tmp_path / "data" / "ant" / "00.png").unlink()
    with pytest.raises(ValueError, match="class 'ant' has fewer than 3 pictures"):
        load_data("image-folder", root=root)
    (tmp_path / "data" / "dog").mkdir()
    with pytest.raises(ValueError, match="dog has no pictures"):
        load_data("image-folder", root=root)


def test_held_out_folders_must_match_the_training_folder(tmp_path: Path) -> None:
    root = image_folder(tmp_path, ("train", "val"), per_class=4)
    (tmp_path / "val" / "bee").rename(tmp_path / "val" / "wasp")
    with pytest.raises(ValueError, match="wasp is no class of the training folder"):
        load_data("image-folder", root=root)


def test_an_unpacked_archive(tmp_path: Path) -> None:
    """As ImageNet's subsets come: JPEG files in folders named by synset, a table of names beside them."""
    names = {"n01443537": "goldfish, Carassius auratus", "n01629819": "European fire salamander"}
    (tmp_path / "classes.tsv").write_text("".join(f"{synset}\t{name}\n" for synset, name in names.items()))
    for label, synset in enumerate(names):
        for i in range(4):
            paint(tmp_path / "train" / synset / f"{synset}_{i}.JPEG", (80 * label, 10 * i, 0), size=(32, 32))
    splits = load_data("image-folder", root=str(tmp_path / "train"))
    assert splits.class_names == tuple(names)  # the table lies in no class folder: it names nothing
    assert splits.train[0][0].shape == (3, 32, 32)


# ---- names and arguments ----


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "glyph"}, r"unknown data set 'glyph': did you mean 'glyphs'\? Give one of digits, glyphs"),
        ({"name": "digits", "num_classes": 5}, "'digits' has 10 classes, but got num_classes=5"),
        ({"name": "digits", "root": "x"}, "'digits' got root='x'"),
        ({"name": "image-folder", "fonts": "x"}, "'image-folder' got fonts='x'"),
        ({"name": "digits", "image_size": 4}, "image_size=4 is too small"),
        ({"name": "glyphs", "num_classes": 1}, "num_classes=1 is too small"),
    ],
)
def test_bad_arguments_say_what_to_do(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        load_data(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "module", "words"),
    [
        ("digits", "sklearn.datasets", "the data set 'digits' needs scikit-learn"),
        ("glyphs", "matplotlib", "the data set 'glyphs' needs matplotlib"),
        ("glyphs", "PIL.ImageFont", "the data set 'glyphs' needs pillow"),
    ],
)
def test_a_missing_package_is_one_sentence(name: str, module: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert name in DATASETS
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{words}, which is not installed: pip install 'fastproto\[train\]'"):
        load_data(name)
