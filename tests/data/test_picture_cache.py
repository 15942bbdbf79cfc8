"""Pictures decoded once: the same as without the cache, whatever lies in it or keeps it from being written."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import PIL
import pytest
import torch
from PIL import Image

from fastproto.data import DataSplits, ImagesInMemory, Preprocessing, load_data
from fastproto.data.decode import with_picture
from fastproto.data.decode_all import decode_all
from fastproto.data.picture_cache import Caching, PictureFile, cached_pictures, remove_oldest

from .helpers import image_folder, paint, reader

NOTE = "note: could not write the picture cache"
LOADS = """
import sys
from fastproto.data import load_data
data = load_data("image-folder", root=sys.argv[1], cache="true")
print(data.train.images.sum().item(), data.test.images.sum().item())
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where pictures are kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fastproto" / "pictures"


@pytest.fixture
def root(tmp_path: Path) -> str:
    """Bitmaps: other pixels leave the sizes of the files as they are."""
    for name in ("ant", "bee"):
        for number in range(3):
            path = tmp_path / "data" / name / f"{number}.bmp"
            paint(path, (80 * (name == "ant"), 50 * number, 7), size=(5, 4))
    return str(tmp_path / "data")


def load(root: str, **other: Any) -> DataSplits:
    return load_data("image-folder", root=root, **({"cache": "auto"} | other))


def assert_as_without(cached: DataSplits, root: str, **other: Any) -> None:
    plain = load(root, cache="false", **other)
    for ours, theirs in ((cached.train, plain.train), (cached.validation, plain.validation), (cached.test, plain.test)):
        assert isinstance(ours, ImagesInMemory) and not isinstance(theirs, ImagesInMemory)
        assert ours.paths == theirs.paths  # type: ignore[attr-defined]
        assert torch.equal(ours.labels, theirs.labels)
        assert torch.equal(ours.images, torch.stack([theirs[i][0] for i in range(len(theirs))]))
    assert cached.preprocessing == plain.preprocessing and cached.class_names == plain.class_names


def only(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def test_the_same_pictures_as_without(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = image_folder(tmp_path / "parts", ("train", "val", "test"), per_class=2)
    Image.new("P", (9, 9), 3).save(tmp_path / "parts" / "train" / "ant" / "palette.png")
    Image.new("CMYK", (9, 31), (1, 200, 3, 4)).save(tmp_path / "parts" / "val" / "ant" / "inks.jpg")
    Image.new("I;16", (30, 20), 40_000).save(tmp_path / "parts" / "test" / "bee" / "deep.tif")
    for root, other in ((image_folder(tmp_path / "flat"), {"image_size": 16}), (parts, {})):
        for _ in range(2):
            assert_as_without(load(root, progress=True, **other), root, **other)
    assert len(list(folder.iterdir())) == 2 and capsys.readouterr().err == ""


def test_kept_pictures_are_taken_and_used_last(root: str, folder: Path) -> None:
    load(root)
    file = only(folder)
    first = file.stat().st_ino
    os.utime(file, (0, 0))
    load(root)
    assert file.stat().st_ino == first and file.stat().st_mtime > 0


def replaced(path: Path) -> None:
    """Other pixels under the old name, size and time."""
    old = path.stat()
    paint(path.with_name("new.bmp"), (9, 9, 9), size=(5, 4))
    assert path.with_name("new.bmp").stat().st_size == old.st_size
    path.with_name("new.bmp").replace(path)
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))


def written_over(path: Path) -> None:
    """The same in the same file."""
    old, pixels = path.stat(), path.read_bytes()
    path.write_bytes(pixels[:-20] + bytes(20))
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], object]] = {
    "a name": lambda path: path.rename(path.with_name("7.bmp")),
    "a size": lambda path: paint(path, (1, 2, 3), size=(6, 6)),
    "a time": lambda path: os.utime(path, ns=(0, path.stat().st_mtime_ns + 1)),
    "another file": replaced,
    "other pixels": written_over,
    "one more": lambda path: shutil.copy(path, path.with_name("8.bmp")),
    "another class": lambda path: path.rename(path.parent.with_name("bee") / "9.bmp"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_files_are_decoded_again(change: str, root: str, folder: Path) -> None:
    paint(Path(root) / "ant" / "x.bmp", (2, 2, 2), size=(5, 4))
    load(root)
    CHANGES[change](Path(root) / "ant" / "1.bmp")
    assert_as_without(load(root), root)
    assert len(list(folder.iterdir())) == 2


def test_other_decoding_is_another_file(root: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = sorted(Path(root).rglob("*.bmp"))
    for read in (reader(8), reader(9), reader(8, 3), Preprocessing(8, 1, (0.5,), (0.5,), light_on_dark=True)):
        found = cached_pictures(paths, read, Caching("true"))
        assert found is not None and torch.equal(found, torch.from_numpy(decode_all(paths, read)))
    assert len(list(folder.iterdir())) == 4
    monkeypatch.setattr(PIL, "__version__", "0")
    cached_pictures(paths, reader(8), Caching("true"))
    assert len(list(folder.iterdir())) == 5


def test_a_file_that_changes_meanwhile_is_not_kept(root: str, folder: Path) -> None:
    class Touching(Preprocessing):
        def read(self, image: Image.Image) -> torch.Tensor:
            os.utime(paths[0], ns=(0, 0))
            return super().read(image)

    paths = sorted(Path(root).rglob("*.bmp"))
    found = cached_pictures(paths, Touching(8, 1, (0.5,), (0.5,)), Caching("true"))
    assert found is not None and len(found) == len(paths) and not folder.exists()


def as_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def as_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def as_link(file: Path) -> None:
    file.unlink()
    file.symlink_to("nothing/here")


CONTENTS: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_bytes(b""),
    "cut short": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "cut to less than a digest": lambda file: file.write_bytes(file.read_bytes()[:9]),
    "longer": lambda file: file.write_bytes(file.read_bytes() + b"x"),
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "a pipe": as_pipe,
    "a dangling link": as_link,
}


@pytest.mark.parametrize("content", CONTENTS)
def test_other_content_is_made_again(content: str, root: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load(root)
    file = only(folder)
    whole = file.read_bytes()
    CONTENTS[content](file)
    assert_as_without(load(root), root)
    assert only(folder) == file and file.read_bytes() == whole and capsys.readouterr().err == ""


def test_any_damaged_byte_is_seen(folder: Path) -> None:
    kept = PictureFile(bytes(32), (2, 3, 4, 4))
    pictures = torch.randint(256, kept.shape, dtype=torch.uint8).numpy()
    kept.write(pictures)
    whole = kept.path.read_bytes()
    found = kept.read()
    assert found is not None and (found == pictures).all() and only(folder) == kept.path
    for at in range(len(whole)):
        kept.path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert kept.read() is None, at
    other = PictureFile(bytes(31) + b"\1", kept.shape)
    other.path.write_bytes(whole)  # of another key
    assert other.read() is None


def test_a_folder_in_its_place_is_passed_by(root: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load(root)
    as_folder(only(folder))
    assert_as_without(load(root), root)
    assert only(folder).is_dir()
    error = capsys.readouterr().err
    assert error.startswith(NOTE) and error.count("\n") == 1


@pytest.mark.parametrize("place", ["a file", "below a file", "a dangling link", "a long name", "no home"])
def test_where_no_folder_can_be(
    place: str, root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nothing")
    folders = {"a file": "file", "below a file": "file/a/b", "a dangling link": "link", "a long name": 300 * "x"}
    if place == "no home":  # a user without an entry, as in some containers
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.delenv("HOME", raising=False)
        monkeypatch.setattr(os, "getuid", lambda: 2**31 - 5)
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / folders[place]))
    assert_as_without(load(root), root)
    error = capsys.readouterr().err
    assert error.startswith(NOTE) and error.count("\n") == 1


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file can grow."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk(root: str, folder: Path, full_disk: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert_as_without(load(root), root)
    assert list(folder.iterdir()) == []
    error = capsys.readouterr().err
    assert error.startswith(NOTE) and error.count("\n") == 1


def test_two_processes_at_once(root: str, folder: Path) -> None:
    data = load(root, cache="false")
    sums = [sum(int(part[i][0].sum()) for i in range(len(part))) for part in (data.train, data.test)]
    commands = [
        subprocess.Popen([sys.executable, "-c", LOADS, root], stdout=-1, stderr=-1, text=True) for _ in range(2)
    ]
    for command in commands:
        assert command.communicate(timeout=100) == (f"{sums[0]} {sums[1]}\n", "")
    assert only(folder).stat().st_size == 32 + 6 * 3 * 4 * 4


def test_the_folder_stays_bounded(root: str, folder: Path) -> None:
    """Files with holes: they have a size and take no room."""
    folder.mkdir(parents=True)
    for age, name in enumerate(("new", "middle", "old")):
        with (folder / f"{name}.pictures").open("wb") as file:
            file.truncate(3 * 2**30)
        os.utime(folder / f"{name}.pictures", (10**9, 10**9 - age))
    with (folder / "of somebody").open("wb") as file:
        file.truncate(9 * 2**30)
    load(root)
    names = {file.name for file in folder.iterdir()}
    assert (
        {"new.pictures", "middle.pictures", "of somebody"} < names and "old.pictures" not in names and len(names) == 4
    )
    os.truncate(folder / "new.pictures", 9 * 2**30)
    os.utime(folder / "new.pictures", (0, 0))
    remove_oldest(folder / "new.pictures")
    assert (folder / "new.pictures").exists()  # what was just written stays


def test_too_many_pictures(root: str, folder: Path) -> None:
    large = load(root, image_size=2**14)  # 0.75 GiB each
    assert not isinstance(large.train, ImagesInMemory) and not folder.exists()
    with pytest.raises(ValueError, match=r"its 6 pictures of 1048576 x 1048576 pixels take .* GiB of memory are free"):
        load(root, image_size=2**20, cache="true")


@pytest.mark.parametrize("processes", [0, 2])
def test_pictures_that_cannot_be_decoded(processes: int, root: str, folder: Path) -> None:
    paths = [path for path in sorted(Path(root).rglob("*.bmp")) for _ in range(500)]
    whole = decode_all(paths, reader(16), processes=processes)
    assert (whole == decode_all(paths, reader(16))).all() and len(whole) == 3000
    state = torch.get_rng_state()
    for path in (paths[1000], paths[2000]):
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"2\.bmp cannot be read") as today:
        with_picture(paths[1000], reader(16).read)
    with pytest.raises(ValueError) as found:
        decode_all(paths, reader(16), processes=processes)
    assert str(found.value) == str(today.value) and type(found.value.__cause__) is type(today.value.__cause__)
    with pytest.raises(ValueError, match="cannot be read"):
        load(root)
    assert not folder.exists()
    assert torch.equal(torch.get_rng_state(), state) and multiprocessing.active_children() == []
