"""Folders of pictures as people, systems and tools leave them: what is read, what is refused, what is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from fastproto.data import DataSplits, load_data
from fastproto.data.layout import find_layout, pictures_of
from fastproto.data.tree import Folder, Leftovers, pictures_below


def paint(path: Path, grey: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), grey).save(path, "PNG")
    return path


def fill(root: Path, *folders: str, count: int = 3) -> Path:
    for folder in folders:
        for i in range(count):
            paint(root / folder / f"{i}.png")
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


# --- what is not read ------------------------------------------------------------------------------------------------


def test_hidden_and_system_entries_are_named_and_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, "cat", "dog")
    wanted = {f"{name}/{i}.png" for name in ("cat", "dog") for i in range(3)}
    hidden = [".git/a.png", "cat/.ipynb_checkpoints/0.png", "cat/._0.png", "dog/deep/.hidden/1.png"]
    system = ["cat/@eaDir/0.png", "__MACOSX/cat/0.png", "lost+found/1.png", "dog/@EADIR/x.png"]
    for name in (*hidden, *system):
        paint(tmp_path / name)
    for name in ("cat/Thumbs.db", "cat/.DS_Store", "cat/notes.txt", "dog/x.PNG.bak", "dog/picture"):
        (tmp_path / name).write_bytes(b"x")
    assert everything(tmp_path) == wanted
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and line.startswith("note: not used: ")
    for words in (
        "3 hidden folders (.git, ...)",
        "2 hidden files (cat/.DS_Store, ...)",
        "4 system folders (__MACOSX, ...)",
        "1 system file (cat/Thumbs.db)",
        "3 files of unknown kind (cat/notes.txt, ...)",
    ):
        assert words in line


def test_a_tidy_folder_is_read_without_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, "train/cat", "train/dog", "val/cat", "val/dog", "test/cat", "test/dog")
    (tmp_path / "classes.tsv").write_text("cat\tcat\n")
    assert len(everything(tmp_path)) == 18
    assert capsys.readouterr().err == ""


def test_only_the_first_rank_speaks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "cat", "dog", ".git")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert len(everything(tmp_path)) == 6
    assert capsys.readouterr().err == ""


def test_pictures_within_folders_of_a_class_belong_to_it(tmp_path: Path) -> None:
    fill(tmp_path, "cat", "dog")
    paint(tmp_path / "cat" / "a" / "b" / "x.png")
    paint(tmp_path / "cat" / "looks.png" / "y.JPG")  # a folder named like a picture
    assert {"cat/a/b/x.png", "cat/looks.png/y.JPG"} < everything(tmp_path)


def test_what_lies_beside_the_classes_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, "train/cat", "train/dog", "test/cat", "cow")
    paint(tmp_path / "stray.png"), paint(tmp_path / "train" / "stray.png")
    (tmp_path / "readme.md").write_text("x")
    found = parts(tmp_path)
    assert found["test"] == {f"test/cat/{i}.png" for i in range(3)}
    line = capsys.readouterr().err
    for words in (
        "1 folder beside the parts (cow)",
        "2 pictures outside the class folders (stray.png, ...)",
        "1 file of unknown kind (readme.md)",
        "no test pictures of 1 class (dog)",
    ):
        assert words in line
    assert line.count("\n") == 1


def test_a_pipe_is_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, "cat", "dog")
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    assert len(everything(tmp_path)) == 6
    assert "1 file that is a pipe or a device (cat/pipe.png)" in capsys.readouterr().err


def test_names_of_any_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, "two words", os.fsdecode(b"caf\xe9"), "naïve ☃", "a\nb")
    paint(tmp_path / "two words" / os.fsdecode(b"\xff\xfe.png"))
    (tmp_path / "two words" / "a\nb.txt").write_text("x")
    data = load_data("image-folder", root=str(tmp_path))
    assert data.class_names == ("a\\nb", "caf\\xe9", "naïve ☃", "two words")
    assert sum(len(part) for part in (data.train, data.validation, data.test)) == 13
    assert capsys.readouterr().err == "note: not used: 1 file of unknown kind (two words/a\\nb.txt)\n"


def test_classes_by_case_are_two_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, "A", "a", "b")
    if len(list(tmp_path.iterdir())) == 3:
        assert load_data("image-folder", root=str(tmp_path)).class_names == ("A", "a", "b")
        assert capsys.readouterr().err == "note: classes that differ by case only: A, a\n"


def test_one_name_in_two_encodings(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    fill(tmp_path / "parts", f"train/{composed}", "train/dog", f"test/{decomposed}", "test/dog")
    data = load_data("image-folder", root=str(tmp_path / "parts"))
    assert data.class_names == (composed, "dog") and data.test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    fill(tmp_path / "flat", composed, decomposed)
    with pytest.raises(ValueError, match=r"'cafe\\u0301' and 'caf\\xe9' .* one name in two encodings of Unicode"):
        load_data("image-folder", root=str(tmp_path / "flat"))


# --- parts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "held_out",
    ["val", "valid", "Validation", "dev", "VAL", "TEST", "testing", "eval", "Evaluation", "test_set", "validate"],
)
@pytest.mark.parametrize("train", ["train", "Training", "train_set"])
def test_usual_names_of_parts(train: str, held_out: str, tmp_path: Path) -> None:
    fill(tmp_path, f"{train}/cat", f"{train}/dog", f"{held_out}/cat", f"{held_out}/dog")
    found = parts(tmp_path)
    assert found["test"] == {f"{held_out}/{name}/{i}.png" for name in ("cat", "dog") for i in range(3)}
    assert {path.split("/")[0] for path in found["train"] | found["validation"]} == {train}


def test_three_parts_by_other_names(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{part}/{name}" for part in ("Train", "dev", "eval") for name in ("cat", "dog")))
    found = parts(tmp_path)
    assert [{path.split("/")[0] for path in found[part]} for part in ("train", "validation", "test")] == [
        {"Train"},
        {"dev"},
        {"eval"},
    ]


REFUSED = [
    (("train", "val", "valid"), "has val and valid, all names of the validation part: keep one"),
    (("train", "Train"), "has Train and train, all names of the training part"),
    (("val", "test"), "has test/ and no train/: name the training folder 'train'"),
]


@pytest.mark.parametrize(("names", "words"), REFUSED)
def test_ambiguous_parts_are_refused(names: tuple[str, ...], words: str, tmp_path: Path) -> None:
    fill(tmp_path, *(f"{part}/{name}" for part in names for name in ("cat", "dog")))
    with pytest.raises(ValueError, match=words):
        load_data("image-folder", root=str(tmp_path))


def test_parts_without_classes_or_pictures_are_refused(tmp_path: Path) -> None:
    root = str(fill(tmp_path, "train/cat", "train/dog", "val/cat"))
    (tmp_path / "test").mkdir()
    with pytest.raises(ValueError, match="test has 0 class folders"):
        load_data("image-folder", root=root)
    paint(tmp_path / "test" / "1.png")
    with pytest.raises(ValueError, match="test has 0 class folders"):
        load_data("image-folder", root=root)
    (tmp_path / "test" / "cat").mkdir()
    with pytest.raises(ValueError, match="test has no pictures"):
        load_data("image-folder", root=root)
    paint(tmp_path / "test" / "emu" / "1.png")
    with pytest.raises(ValueError, match="emu is no class of the training folder"):
        load_data("image-folder", root=root)


def test_training_and_test_pictures_without_classes_are_no_classes(tmp_path: Path) -> None:
    fill(tmp_path, "train", "test")
    with pytest.raises(ValueError, match="train has 0 class folders"):
        load_data("image-folder", root=str(tmp_path))
    fill(tmp_path / "flat", "cat", "dog", "test")
    with pytest.raises(ValueError, match=r"has test/ and no train/: .* or rename test/ if it is a class"):
        load_data("image-folder", root=str(tmp_path / "flat"))


def test_trains_are_a_class_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(everything(fill(tmp_path, "plane", "train"))) == 6
    assert "train/ is taken for a class" in capsys.readouterr().err


def test_parts_within_a_class_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, "cat/train", "cat/test", "dog/train", "dog/test")
    with pytest.raises(ValueError, match=r"cat holds the parts test and train: make train/<class> and test/<class>"):
        load_data("image-folder", root=str(tmp_path))


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has 1 class folders \(cat\): give a folder with at least 2"):
        load_data("image-folder", root=str(fill(tmp_path, "cat", "__MACOSX")))


def test_a_class_of_one_picture_needs_parts(tmp_path: Path) -> None:
    fill(tmp_path, "cat", "dog", count=1)
    with pytest.raises(ValueError, match="class 'cat' has fewer than 3 pictures"):
        load_data("image-folder", root=str(tmp_path))
    fill(tmp_path / "parts", *(f"{p}/{n}" for p in ("train", "val", "test") for n in ("cat", "dog")), count=1)
    assert [len(found) for found in parts(tmp_path / "parts").values()] == [2, 2, 2]


# --- links -----------------------------------------------------------------------------------------------------------


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


# --- pictures that cannot be read ------------------------------------------------------------------------------------


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


# --- the tables ------------------------------------------------------------------------------------------------------


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
