"""Word tables, lists of names and array files as others write them, damaged or made to do harm."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from fastproto import cli
from fastproto.prototypes import load_prototypes, load_word_vectors
from fastproto.prototypes.words import read_names
from fastproto.support.array_files import ALWAYS, RATIO, check_torch_archive, read_npy, read_npz
from fastproto.support.text_files import LONGEST, text_lines
from fastproto.training.renewals import read_class_means


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# --- text ------------------------------------------------------------------------------------------------------------

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_text_of_any_system(encoding: str, end: str) -> None:
    lines = ["häuser 1 0 0", "", "sea lion\t0 2 0  ", "  bär\t0\t0\t3", "\t ", "x\u2028y\x0b 1 1 1"]
    for last in ("", end):
        Path("words.txt").write_bytes((end.join(lines) + last).encode(encoding))
        assert [number for number, _ in text_lines("words.txt")] == [1, 3, 4, 6]
        found = load_word_vectors("words.txt", ["Häuser", "sea-lion", "ba\u0308r"])
        assert torch.equal(found.vectors, torch.eye(3))
    Path("names.txt").write_bytes(end.join(["häuser ", "", "\tsea lion", "x\u2028y"]).encode(encoding))
    assert read_names("names.txt") == ["häuser", "sea lion", "x\u2028y"]


def test_big_endian_utf16_with_its_mark() -> None:
    Path("names.txt").write_bytes(b"\xfe\xff" + "ä\r\nb".encode("utf-16-be"))
    assert read_names("names.txt") == ["ä", "b"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "names.txt holds no name"),
        (b"\xef\xbb\xbf\r\n  \n", "names.txt holds no name"),
        (b"a\nh\xe4user\n", "names.txt line 2 is not UTF-8 text"),
        (b"a\nb\0c\n", "names.txt line 2 holds a NUL"),
        ("ab\n".encode("utf-16-le"), "names.txt line 1 holds a NUL"),
        (b"\xff\xfea", "names.txt is damaged UTF-16 text"),
        (gzip.compress(b"a\nb\n", mtime=0), r"names.txt is compressed \(gzip\).* unpack it first"),
        (b"PK\x03\x04", r"names.txt is compressed \(zip\)"),
        (b"a" * (LONGEST + 1), "names.txt line 1 is longer than 16,777,216 characters"),
    ],
)
def test_what_is_no_list_of_names(content: bytes, words: str) -> None:
    Path("names.txt").write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        read_names("names.txt")
    assert "\n" not in str(caught.value)


def test_the_command_names_a_bad_list_of_names(capsys: pytest.CaptureFixture[str]) -> None:
    Path("words.txt").write_bytes("\ufeffapple 1 0\r\nsea lion\t0 1\r\n".encode())
    Path("names.txt").write_bytes("apple\r\nsea lion".encode("utf-16"))
    assert cli.prototypes(["--words", "words.txt", "--names", "names.txt"]) == 0
    assert "2 in 2 dimensions" in capsys.readouterr().out
    Path("names.txt").write_bytes(b"apple\nsee l\xf6we")
    assert cli.prototypes(["--words", "words.txt", "--names", "names.txt"]) == 2
    assert capsys.readouterr().err == (
        "error: names.txt line 2 is not UTF-8 text; expected UTF-8: save the file in that encoding\n"
    )


GOOD = "apple 1 0 0\npear 0 1 0\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("apple 1 0 0\npear 0 1\n", "line 2 has 2 numbers; expected 3"),
        ("apple 1 0 0\npear 0 1 0 0\n", "line 2 has 4 numbers; expected 3"),
        ("2 3\napple 1 0 0\npear 0 1\n", "line 3 has 2 numbers; expected 3"),
        ("2 4\napple 1 0 0\npear 0 1 0\n", "line 2 has 3 numbers; expected 4"),
        ("apple\t1 0\npear\t0 1 0\n", "line 2 has 3 numbers; expected 2"),
        ("apple\t1 0\npear\t\n", "line 2 has 0 numbers; expected 2"),
        ("apple\npear\n", "line 1 has 0 numbers"),
        ("apple 1 0 0\npear 0 nan 0\n", "line 2 holds NaN or inf"),
        ("apple 1 0 0\npear 0 1e999 0\n", "line 2 holds NaN or inf"),
        ("apple 1 0 0\npear 0 1,5 0\n", "line 2 is not a name and numbers"),
        ("apple 1 0 0\npear\t0 x 0\n", "line 2 is not a name and numbers"),
        ("apple 1 0 0\npear 0 0 0\n", "row 1 is zero"),
        ("", "words.txt is empty"),
        ("\n\n \n", "words.txt is empty"),
        ("apple 1 0 0\npear 0 \0 0\n", "line 2 holds a NUL"),
        ("apple 1 0 0\n", "no vector for 1 of 2 classes .'pear'"),
    ],
)
def test_bad_lines_of_word_vectors_are_named(text: str, words: str) -> None:
    Path("words.txt").write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        load_word_vectors("words.txt", ["apple", "pear"])
    assert "words.txt" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "2 3\n" + GOOD,
        "2\t3\n" + GOOD,
        "  apple   1  0   0  \n\tpear\t0 1\t0\n",
        GOOD + "apple 9 9 9\npear 8 8 8\n",  # the first of several counts
        "word\tx\ty\tz\napple\t1\t0\t0\npear\t0\t1\t0\n",  # a heading
        "word x y z\n" + GOOD,
        "cut 1 2\n".join(["", "apple 1 0 0\n", "pear 0 1 0\n"])[len("cut 1 2\n") :],  # a bad line that nobody needs
        "new york 1 1 1\n" + GOOD,  # a name of two words in the first line
        GOOD.replace(" ", "\t"),
    ],
)
def test_word_vectors_as_they_are_found(text: str) -> None:
    Path("words.txt").write_text(text)
    assert torch.equal(load_word_vectors("words.txt", ["apple", "pear"]).vectors, torch.eye(3)[:2])


def test_lines_in_another_encoding_matter_where_they_are_needed() -> None:
    Path("words.txt").write_bytes(GOOD.encode() + b"caf\xe9 1 1 1\n")
    assert len(load_word_vectors("words.txt", ["apple", "pear"]).vectors) == 2
    with pytest.raises(ValueError, match=r"no vector for 1 of 2 classes \('café'\).*; line 3 is not UTF-8 text"):
        load_word_vectors("words.txt", ["apple", "café"])
    Path("words.txt").write_bytes(gzip.compress(GOOD.encode()))
    with pytest.raises(ValueError, match=r"words.txt is compressed \(gzip\)"):
        load_word_vectors("words.txt", ["apple", "pear"])


def test_word_vectors_from_odd_archives() -> None:
    np.savez("a.npz", names=np.array([b"apple", b"pear"]), vectors=np.eye(2, dtype=np.int8))
    assert torch.equal(load_word_vectors("a.npz", ["apple", "pear"]).vectors, torch.eye(2))
    for names, vectors in (
        (np.array([1, 2]), np.eye(2)),
        (np.array(["apple", "pear"]), np.eye(2, dtype=complex)),
        (np.array([b"\xff", b"a"]), np.eye(2)),
        (np.array(["apple", "pear"], dtype=object), np.eye(2)),
    ):
        np.savez("b.npz", names=names, vectors=vectors)
        with pytest.raises(ValueError, match=r"b\.npz .*expected"):
            load_word_vectors("b.npz", ["apple", "pear"])


# --- arrays ----------------------------------------------------------------------------------------------------------


def npy(header: str, body: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H" if version == b"\x01\x00" else "<I", len(text)) + text + body


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f8", ">f8", "<f2"])
def test_arrays_of_any_layout(order: str, kind: str) -> None:
    matrix = np.asarray(np.array([[0.6, 0.8, 0], [0, 0, 2]], kind), order=order)
    np.save("w.npy", matrix)
    np.savez("w.npz", vectors=matrix / np.array([[1], [2]], kind))
    np.savez_compressed("c.npz", vectors=matrix / np.array([[1], [2]], kind))
    expected = torch.tensor([[0.6, 0.8, 0], [0, 0, 1]])
    for name in ("w.npy", "w.npz", "c.npz"):
        torch.testing.assert_close(load_prototypes(name).vectors, expected, rtol=0, atol=5e-4)
    assert read_npy("w.npy").dtype.isnative and np.array_equal(read_npy("w.npy"), matrix)


@pytest.mark.parametrize("array", [np.zeros(()), np.zeros((0, 3)), np.arange(6).reshape(1, 2, 3), np.array(["a"])])
def test_arrays_survive_any_shape(array: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
    np.save("a.npy", array)
    assert np.array_equal(read_npy("a.npy"), array) and read_npy("a.npy").shape == array.shape


ABSURD = {
    "a claim of 1e18 numbers": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 1000000000)}", b"x"),
    "more numbers than fit an integer": npy(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (10**30, 3)}".replace("10**30", "1" + 30 * "0")
    ),
    "no numbers of a huge shape": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 1" + 30 * "0" + ")}"),
    "a negative shape": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-2, -2)}", bytes(16)),
    "strings of no length": npy("{'descr': '<U0', 'fortran_order': False, 'shape': (1000000000, 9)}"),
    "another array behind it": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2)}", bytes(99)),
    "objects": npy("{'descr': '|O', 'fortran_order': False, 'shape': (2, 2)}", b"cos\nsystem\n"),
    "code in the header": npy("__import__('os').system('touch executed')"),
    "a long header": npy("{" + " " * 60000 + "}", version=b"\x02\x00"),
    "a header cut off": b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + b"{",
    "version 9": npy("{}", version=b"\x09\x00"),
    "nothing": b"",
    "a pickle": b"\x80\x04\x95\x00",
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_headers_take_no_memory(name: str) -> None:
    Path("w.npy").write_bytes(ABSURD[name])
    with zipfile.ZipFile("w.npz", "w") as archive:
        archive.writestr("vectors.npy", ABSURD[name])
    tracemalloc.start()
    try:
        for file in ("w.npy", "w.npz"):
            with pytest.raises(ValueError, match=rf"{file} .*expected") as caught:
                load_prototypes(file)
            assert "\n" not in str(caught.value)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()
    assert not Path("executed").exists()


def bomb(name: str, count: int, method: int = zipfile.ZIP_DEFLATED) -> None:
    """An archive of one array of zeros, ``count`` bytes of it."""
    head = npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({count},)}}")
    with zipfile.ZipFile(name, "w", method) as archive, archive.open("vectors.npy", "w") as file:
        file.write(head)
        for start in range(0, count, 2**20):
            file.write(bytes(min(2**20, count - start)))


def test_archives_unpack_to_a_bounded_size() -> None:
    bomb("small.npz", ALWAYS // 2)
    assert read_npz("small.npz")["vectors"].nbytes == ALWAYS // 2
    bomb("large.npz", 2 * ALWAYS)
    assert RATIO * Path("large.npz").stat().st_size < 2 * ALWAYS
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"large\.npz could not be read as prototypes \(it unpacks to more than"):
            load_prototypes("large.npz")
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()
    bomb("lzma.npz", 1000, zipfile.ZIP_LZMA)
    with pytest.raises(ValueError, match="its compression is not one that NumPy writes"):
        load_prototypes("lzma.npz")


def test_damaged_archives_are_one_sentence() -> None:
    np.savez("good.npz", vectors=np.eye(3, dtype=np.float32))
    whole = Path("good.npz").read_bytes()
    at = whole.find(b"\x00\x00\x80\x3f")
    for number, content in enumerate((whole[:-30], whole[:100], whole[:at] + b"\x01" + whole[at + 1 :], b"PK\x03\x04")):
        name = f"bad{number}.npz"
        Path(name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name} could not be read as prototypes \(.+\); expected") as caught:
            load_prototypes(name)
        assert "\n" not in str(caught.value)


def test_facts_in_a_file_are_checked() -> None:
    from safetensors.torch import save_file

    for facts in (
        {"passes": "9" * 400},
        {"passes": "x"},
        {"seconds": "nan"},
        {"method": "a\nb"},
        {"method": "a" * 101},
    ):
        save_file({"vectors": torch.eye(3)}, "w.safetensors", metadata=facts)
        with pytest.raises(ValueError, match=r"w\.safetensors could not be read as prototypes"):
            load_prototypes("w.safetensors")
    for facts_ in ({"passes": np.array(-1)}, {"method": np.array(["a", "b"])}, {"seconds": np.array(np.inf)}):
        np.savez("w.npz", vectors=np.eye(3), **facts_)
        with pytest.raises(ValueError, match=r"w\.npz could not be read as prototypes"):
            load_prototypes("w.npz")


def test_wrong_kinds_of_numbers_are_named() -> None:
    from safetensors.torch import save_file

    for dtype in (torch.int64, torch.bool):
        save_file({"vectors": torch.eye(3).to(dtype)}, "w.safetensors")
        with pytest.raises(ValueError, match=r"w\.safetensors holds a tensor of torch\..*; expected a matrix"):
            load_prototypes("w.safetensors")
    # by hand: safetensors before 0.6 neither write complex numbers nor read them
    header = json.dumps({"vectors": {"dtype": "C64", "shape": [3, 3], "data_offsets": [0, 72]}}).encode()
    Path("w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(72))
    with pytest.raises(ValueError, match=r"w\.safetensors (holds a .*complex64|could not be read as)"):
        load_prototypes("w.safetensors")
    for array in (np.eye(3, dtype=complex), np.eye(3, dtype=np.int64), np.array([["a"]]), np.ones(3)):
        np.save("w.npy", array)
        with pytest.raises(ValueError, match=r"w\.npy holds .*; expected a matrix of floating-point numbers"):
            load_prototypes("w.npy")


# --- files of torch.save ---------------------------------------------------------------------------------------------


def test_a_matrix_that_repeats_one_number_is_not_unfolded() -> None:
    torch.save({"w": torch.ones(1).expand(100_000, 1_000_000)}, "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth claims a 'w' larger than the file"):
        load_prototypes("w.pth")


def test_compressed_archives_of_torch_are_refused() -> None:
    torch.save({"w": torch.zeros(3, 5)}, "plain.pth")
    check_torch_archive("plain.pth")
    with zipfile.ZipFile("plain.pth") as old, zipfile.ZipFile("w.pth", "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
    with pytest.raises(ValueError, match=r"w\.pth could not be read as prototypes \(its content is compressed"):
        load_prototypes("w.pth")


@pytest.mark.parametrize("content", [b"", b"x", b"PK\x03\x04 damaged", b"\x80\x02}q\x00.", bytes(1000)])
def test_damaged_files_of_torch_are_one_sentence(content: bytes) -> None:
    Path("w.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"w\.pth") as caught:
        load_prototypes("w.pth")
    assert "\n" not in str(caught.value)


# --- saved class means -----------------------------------------------------------------------------------------------


def test_saved_class_means_are_checked() -> None:
    folder = Path("run", "class_means")
    folder.mkdir(parents=True)
    good = {"class_means": np.zeros((3, 2), "f4"), "prototypes": np.ones((3, 2), "f4"), "assignment": np.arange(3)}
    np.savez(folder / "00000001.npz", **good)
    np.savez(folder / ".00000002.x.npz", **good)  # a temporary file
    (folder / "notes.npz").write_bytes(b"x")
    assert read_class_means(Path("run"))["class_means"].shape == (1, 3, 2)
    bad = [
        good | {"assignment": np.arange(2)},
        good | {"prototypes": np.ones((3, 2))},
        {"class_means": good["class_means"]},
        good | {"assignment": np.array([None, None, None])},
        {name: array[:2] for name, array in good.items()},
    ]
    for arrays in bad:
        np.savez(folder / "00000005.npz", **arrays)
        with pytest.raises(ValueError, match=r"00000005\.npz .*expected") as caught:
            read_class_means(Path("run"))
        assert "\n" not in str(caught.value)
    (folder / "00000005.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match=r"00000005\.npz could not be read as class means"):
        read_class_means(Path("run"))


def test_an_array_of_ten_million_bytes_takes_little_more(tmp_path: Path) -> None:
    content = io.BytesIO()
    np.save(content, np.zeros((1000, 1250), np.float64))
    (tmp_path / "w.npy").write_bytes(content.getvalue())
    del content
    tracemalloc.start()
    try:
        assert read_npy(tmp_path / "w.npy").shape == (1000, 1250)
        assert tracemalloc.get_traced_memory()[1] < 1.1 * 10**7
    finally:
        tracemalloc.stop()
