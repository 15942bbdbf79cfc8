"""Folders of pictures as people, systems and tools leave them: what is read, what is refused, what is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastproto.data import load_data

from .helpers import everything, fill, paint_grey, parts


def test_hidden_and_system_entries_are_named_and_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, "cat", "dog")
    wanted = {f"{name}/{i}.png" for name in ("cat", "dog") for i in range(3)}
    hidden = [".git/a.png", "cat/.ipynb_checkpoints/0.png", "cat/._0.png", "dog/deep/.hidden/1.png"]
    system = ["cat/@eaDir/0.png", "__MACOSX/cat/0.png", "lost+found/1.png", "dog/@EADIR/x.png"]
    for name in (*hidden, *system):
        paint_grey(tmp_path / name)
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
    paint_grey(tmp_path / "cat" / "a" / "b" / "x.png")
    paint_grey(tmp_path / "cat" / "looks.png" / "y.JPG")  # a folder named like a picture
    assert {"cat/a/b/x.png", "cat/looks.png/y.JPG"} < everything(tmp_path)


def test_what_lies_beside_the_classes_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, "train/cat", "train/dog", "test/cat", "cow")
    paint_grey(tmp_path / "stray.png"), paint_grey(tmp_path / "train" / "stray.png")
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
    paint_grey(tmp_path / "two words" / os.fsdecode(b"\xff\xfe.png"))
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
    paint_grey(tmp_path / "test" / "1.png")
    with pytest.raises(ValueError, match="test has 0 class folders"):
        load_data("image-folder", root=root)
    (tmp_path / "test" / "cat").mkdir()
    with pytest.raises(ValueError, match="test has no pictures"):
        load_data("image-folder", root=root)
    paint_grey(tmp_path / "test" / "emu" / "1.png")
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
    with pytest.raises(ValueError, match=r"cat holds the parts test and train: move them to train/<class>"):
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
