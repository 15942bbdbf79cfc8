"""Links in image folders, pictures that cannot be read, and tables of class names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from fastproto.data import load_data
from fastproto.data.layout import find_layout, pictures_of
from fastproto.data.tree import Folder, Leftovers, pictures_below

from .helpers import everything, fill, parts


def test_links_are_followed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = fill(tmp_path / "store", "cats", "dogs", "more", "held/cat", "held/dog")
    root = tmp_path / "root"
    (root / "train").mkdir(parents=True)
    (root / "train" / "cat").symlink_to(store / "cats")
    fill(root, "train/dog")
    (root / "train" / "dog" / "more").symlink_to(store / "more")
    (root / "train" / "dog" / "again").symlink_to(store / "more")
    (root / "train" / "dog" / "same.png").symlink_to("0.png")
    (root / "train" / "dog" / "other.png").symlink_to(store / "dogs" / "1.png")
    (root / "val").symlink_to(store / "held")
    found = parts(root)
    assert found["train"] | found["validation"] == {
        *(f"train/{name}/{i}.png" for name in ("cat", "dog", "dog/again") for i in range(3)),
        "train/dog/other.png",
    }
    assert len(found["test"]) == 6
    line = capsys.readouterr().err
    assert "1 link to a folder read before (train/dog/more)" in line
    assert "1 link to a file read before (train/dog/same.png)" in line


def test_dangling_links_and_loops_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, "cat", "dog")
    (tmp_path / "cat" / "gone.png").symlink_to("nowhere")
    (tmp_path / "cat" / "self.png").symlink_to("self.png")
    (tmp_path / "cat" / "here").symlink_to(".")
    (tmp_path / "dog" / "up.png").symlink_to(tmp_path)
    (tmp_path / "dog" / "far").symlink_to(tmp_path.parent)
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "dog" / "a").mkdir(), (tmp_path / "dog" / "b").mkdir()
    (tmp_path / "dog" / "a" / "to_b").symlink_to("../b"), (tmp_path / "dog" / "b" / "to_a").symlink_to("../a")
    assert everything(tmp_path) == {f"{name}/{i}.png" for name in ("cat", "dog") for i in range(3)}
    line = capsys.readouterr().err
    assert "3 links to nothing (gone, ...)" in line
    assert "4 links to a folder above it (loop, ...)" in line
    assert "2 links to a folder read before (dog/a/to_b, ...)" in line


def test_nothing_is_trained_and_tested_on_at_once(tmp_path: Path) -> None:
    one = fill(tmp_path / "one", "train/cat", "train/dog")
    (one / "val").symlink_to("train")
    with pytest.raises(ValueError, match=r"train and .*val are the same folder, and nothing may be trained and tested"):
        load_data("image-folder", root=str(one))
    two = fill(tmp_path / "two", "train/cat", "train/dog", "test/cat", "test/dog")
    (two / "test" / "cat" / "x.png").symlink_to(two / "train" / "cat" / "0.png")
    with pytest.raises(ValueError, match=r"train/cat/0\.png and .*test/cat/x\.png are one file through a link"):
        load_data("image-folder", root=str(two))
    (two / "test" / "cat" / "x.png").unlink()
    os.link(two / "train" / "cat" / "0.png", two / "test" / "cat" / "x.png")
    with pytest.raises(ValueError, match="nothing may be trained and tested on at once: remove one of them"):
        load_data("image-folder", root=str(two))
    three = fill(tmp_path / "three", "train/cat", "train/dog", "test/dog")
    (three / "test" / "cat").symlink_to(three / "train" / "cat")
    with pytest.raises(ValueError, match="trained and tested on at once"):
        load_data("image-folder", root=str(three))


def test_no_picture_has_two_classes(tmp_path: Path) -> None:
    fill(tmp_path, "cat", "dog")
    (tmp_path / "kitten").symlink_to("cat")
    with pytest.raises(ValueError, match=r"cat and .*kitten are the same folder, .* belong to two classes"):
        load_data("image-folder", root=str(tmp_path))
    (tmp_path / "kitten").unlink()
    (tmp_path / "dog" / "cats").symlink_to("../cat")
    with pytest.raises(ValueError, match=r"are one file through a link, in two classes: remove one of them"):
        load_data("image-folder", root=str(tmp_path))


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"\x89PNG\r\n\x1a\n", b"<svg xmlns='http://www.w3.org/2000/svg'/>"]
)
@pytest.mark.parametrize("place", ["train/cat/1.png", "test/dog/2.png"])
def test_what_is_no_picture_is_found_before_training(content: bytes, place: str, tmp_path: Path) -> None:
    fill(tmp_path, "train/cat", "train/dog", "test/cat", "test/dog")
    (tmp_path / place).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{place} cannot be read \(.*\): replace the file or delete it") as caught:
        load_data("image-folder", root=str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM"])
def test_truncated_pictures_are_found_before_training(kind: str, tmp_path: Path) -> None:
    fill(tmp_path, *(f"{part}/{name}" for part in ("train", "val", "test") for name in ("cat", "dog")))
    cut = tmp_path / "test" / "dog" / "1.png"
    Image.effect_noise((40, 40), 90).save(cut, kind)
    data = load_data("image-folder", root=str(tmp_path))
    data.test.check()
    cut.write_bytes(cut.read_bytes()[:-100])
    data.train.check(), data.validation.check()
    with pytest.raises(ValueError, match=r"test/dog/1\.png cannot be read \(.+\): replace the file or delete it"):
        data.test.check()


def test_a_picture_under_another_suffix_is_read(tmp_path: Path) -> None:
    fill(tmp_path, "cat", "dog")
    Image.new("RGB", (8, 8), "white").save(tmp_path / "cat" / "jpeg.png", "JPEG")
    assert "cat/jpeg.png" in everything(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_class_names_as_any_editor_writes_them(encoding: str, end: str, tmp_path: Path) -> None:
    fill(tmp_path, "cat", "dog")
    text = end.join(["cat\tcät  ", "", "dog\t dog one", "cow\tno folder"])
    (tmp_path / "classes.tsv").write_bytes(text.encode(encoding))
    assert load_data("image-folder", root=str(tmp_path)).class_names == ("cät", "dog one")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"cat\tc\xe4t\n", "classes.tsv line 1 is not UTF-8"),
        (b"dog\td\ncat\tc\0at\n", "classes.tsv line 2 holds a NUL"),
        (b"cat\ta\ncat\tb\n", "classes.tsv line 2 names the folder cat again"),
        (b"\x1f\x8b\x08\x00", r"classes.tsv is compressed \(gzip\)"),
        (b"cat cat\n", "has a line without a tab"),
    ],
)
def test_bad_tables_of_class_names(content: bytes, words: str, tmp_path: Path) -> None:
    fill(tmp_path, "cat", "dog")
    (tmp_path / "classes.tsv").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        load_data("image-folder", root=str(tmp_path))


def test_layout_functions_report_what_they_leave(tmp_path: Path) -> None:
    fill(tmp_path, "cat", "dog")
    layout = find_layout(tmp_path)
    assert layout.flat and list(layout.parts) == ["train"]
    assert [len(files) for files in pictures_of(layout, "train", ["cat", "dog"])] == [3, 3]
    left = Leftovers(tmp_path)
    (tmp_path / "cat" / "x.svg").write_text("<svg/>")
    assert len(pictures_below(Folder.at(tmp_path / "cat"), left)) == 3
    assert str(left) == "1 file of unknown kind (cat/x.svg)"
