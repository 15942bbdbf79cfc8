"""Array files and archives as others write them, damaged or made to do harm."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from fastproto.prototypes import load_prototypes
from fastproto.support.array_files import ALWAYS, RATIO, check_torch_archive, read_npy, read_npz


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


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
