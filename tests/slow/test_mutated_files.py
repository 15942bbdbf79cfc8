"""Files of every kind that is read, damaged at random: a valid result or one sentence that names the file.

Each kind runs in a process of its own, for a fixed time: no mutated file may end it, execute anything, or take more
memory than a stated multiple of the file (for pictures, of the pixels that Pillow's limit allows).
"""

from __future__ import annotations

import csv
import ctypes
import io
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

SECONDS = 30  # of mutations, for each kind
MARGIN = 64 * 2**20  # bytes that any call may take beside the multiple of its file
PIXELS = 2**20  # Pillow's limit here; it refuses pictures of more than twice as many
PER_PIXEL = 48
UNPACKED = 16 * 2**20
Read = Callable[[Path], object]


class Canary:
    """Leaves a file behind where it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)


# --- mutations -------------------------------------------------------------------------------------------------------

EXTREME = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1]
WORDS = [
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\0",
    b"\r",
    b"\xe4",
    b"nan",
    b"1e999",
    b"-",
    b"9" * 30,
    b"\t",
    b" ",
    b"{",
    b"'",
]


def mutate(content: bytes, rng: random.Random) -> bytes:
    """One to four damages: bits, bytes, extreme integers, cuts, insertions, repetitions, removals."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        # Headers are short and tell most: every second damage is near the start.
        at = rng.randrange(min(len(data), 200) if rng.random() < 0.5 else len(data)) if data else 0
        length = rng.choice([1, 2, 4, 8, 30, 300])
        match rng.randrange(9):
            case 0:
                for _ in range(rng.randrange(1, 9)):
                    if data:
                        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            case 1 if data:
                data[at] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
            case 2:
                width = rng.choice([1, 2, 4, 8])
                number = rng.choice(EXTREME) % 256**width
                data[at : at + width] = number.to_bytes(width, rng.choice(["little", "big"]))
            case 3:
                del data[at:]
            case 4:
                data[at:at] = rng.randbytes(length)
            case 5:
                data[at:at] = data[at : at + length]
            case 6:
                del data[at : at + length]
            case 7:
                data[at:at] = rng.choice(WORDS)
            case _:
                data[at : at + length] = bytes(length)
    return bytes(data)


def mutate_within(content: bytes, rng: random.Random) -> bytes:
    """Damage behind the checksums: a member of a zip archive or a chunk of a PNG, put together again as valid."""
    if content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(content)) as old:
            if sum(info.file_size for info in old.infolist()) > 2**20:
                return mutate(content, rng)  # a bomb
            members = [(info.filename, old.read(info)) for info in old.infolist()]
        worse = rng.randrange(len(members))
        file, method = io.BytesIO(), rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
        with zipfile.ZipFile(file, "w", method) as new:
            for number, (name, body) in enumerate(members):
                new.writestr(name, mutate(body, rng) if number == worse else body)
        return file.getvalue()
    if content.startswith(b"\x89PNG"):
        chunks, at = [], 8
        while at < len(content):
            (size,) = struct.unpack_from(">I", content, at)
            chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
            at += 12 + size
        worse = rng.randrange(len(chunks))
        name, body = chunks[worse]
        inside = name == b"IDAT" and rng.random() < 0.5
        chunks[worse] = (name, zlib.compress(mutate(zlib.decompress(body), rng)) if inside else mutate(body, rng))
        return content[:8] + b"".join(
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
            for name, body in chunks
        )
    return mutate(content, rng)


# --- the kinds: valid files, how they are read, and the errors that are documented -----------------------------------


def pictures(folder: Path) -> Iterator[Path]:
    import numpy as np
    from PIL import Image, ImageCms, features

    noise = np.random.default_rng(0)
    rgb = Image.fromarray(noise.integers(0, 256, (24, 20, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes().replace(b"s\0R\0G\0B", b"o\0d\0d\0!")
    files: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "grey.png": (rgb.convert("L"), {"exif": exif}),
        "alpha.png": (rgb.convert("RGBA"), {"icc_profile": profile}),
        "palette.png": (rgb.quantize(8), {"transparency": 3}),
        "deep.png": (Image.fromarray(noise.integers(0, 65536, (24, 20), dtype=np.uint16)), {}),
        "photo.jpg": (rgb, {"exif": exif, "icc_profile": profile}),
        "press.jpg": (rgb.convert("CMYK"), {"icc_profile": profile}),
        "moving.gif": (rgb.quantize(16), {"save_all": True, "append_images": [rgb.quantize(9)]}),
        "float.tiff": (Image.fromarray(noise.random((24, 20), dtype=np.float32)), {}),
        "lzw.tiff": (rgb, {"compression": "tiff_lzw", "exif": exif}),
        "deflated.tiff": (Image.fromarray(noise.integers(0, 65536, (24, 20), dtype=np.uint16)), {"compression": "zip"}),
        "plain.bmp": (rgb, {}),
        "plain.ppm": (rgb, {}),
        "lossy.webp": (rgb, {"exif": exif}),
        "lossless.webp": (rgb.convert("RGBA"), {"lossless": True}),
    }
    if features.check("jpg_2000"):
        files["wave.jp2"] = (rgb, {})
    if features.check("avif"):
        files["small.avif"] = (rgb, {})
    for name, (image, options) in files.items():
        image.save(folder / name, **options)
        yield folder / name


def read_picture(path: Path) -> None:
    from PIL import Image

    from fastproto.data import Preprocessing
    from fastproto.data.decode import with_picture

    Image.MAX_IMAGE_PIXELS = PIXELS
    for channels in (1, 3):
        preprocessing = Preprocessing(16, channels, (0.5,) * channels, (0.5,) * channels)
        pixels = with_picture(path, preprocessing.read)
        assert pixels.shape == (channels, 16, 16) and str(pixels.dtype) == "torch.uint8"


def prototypes(folder: Path) -> Iterator[Path]:
    import numpy as np
    import torch

    from fastproto.prototypes import estimate_prototypes

    found = estimate_prototypes(6, 4, max_passes=5, cache=False)
    for suffix in (".safetensors", ".npz", ".npy", ".pth"):
        found.save(folder / f"w{suffix}")
        yield folder / f"w{suffix}"
    np.savez_compressed(folder / "c.npz", vectors=found.vectors.numpy())
    np.savez(folder / "o.npz", vectors=np.array([Canary()], dtype=object))
    np.save(folder / "o.npy", np.array([Canary()], dtype=object), allow_pickle=True)
    torch.save({"w": Canary()}, folder / "o.pth")
    torch.save({"w": torch.ones(1).expand(10**5, 10**5)}, folder / "e.pth")
    (folder / "p.pth").write_bytes(pickle.dumps({"w": Canary()}))
    torch.save({"w": torch.eye(3)}, folder / "l.pth", _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2100, 2100)}\n"
        body = b"\x93NUMPY\x01\0" + struct.pack("<H", len(head)) + head + bytes(4 * 2100 * 2100)
        archive.writestr("vectors.npy", body)
    with zipfile.ZipFile(folder / "l.pth.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**7))
    os.replace(folder / "l.pth.zip", folder / "z.pth")
    yield from (folder / name for name in ("c.npz", "o.npz", "o.npy", "o.pth", "e.pth", "p.pth", "l.pth"))
    yield from (folder / name for name in ("bomb.npz", "z.pth"))


def read_prototypes(path: Path) -> None:
    import torch

    from fastproto import load_prototypes

    vectors = load_prototypes(path).vectors
    assert vectors.dtype == torch.float32 and vectors.ndim == 2
    assert bool(((torch.linalg.vector_norm(vectors, dim=1) - 1).abs() < 2e-3).all())


def words(folder: Path) -> Iterator[Path]:
    import numpy as np

    text = "".join(f"{name} 0.5 -1.25 {i}\n" for i, name in enumerate(["the", "apple", "sea", "lion", "pear"]))
    contents = {
        "plain.txt": text.encode(),
        "counted.txt": ("5 3\n" + text).encode(),
        "tabs.tsv": text.replace(" ", "\t", 1).replace(" ", "\t").encode(),
        "windows.txt": text.replace("\n", "\r\n").encode("utf-16"),
        "marked.txt": text.encode("utf-8-sig"),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        yield folder / name
    names, vectors = np.array(["apple", "pear", "sea", "lion"]), np.random.default_rng(0).random((4, 3))
    np.savez(folder / "words.npz", names=names, vectors=vectors)
    np.savez(folder / "bytes.npz", names=names.astype("S"), vectors=vectors.astype(">f4"))
    np.savez(folder / "objects.npz", names=np.array([Canary()] * 4, dtype=object), vectors=vectors)
    yield from (folder / name for name in ("words.npz", "bytes.npz", "objects.npz"))


def read_words(path: Path) -> None:
    import torch

    from fastproto.prototypes import load_word_vectors

    vectors = load_word_vectors(path, ["apple", "sea lion", "pear"]).vectors
    assert len(vectors) == 3 and bool(torch.isfinite(vectors).all())


def tables(folder: Path) -> Iterator[Path]:
    from PIL import Image

    for name in ("cat", "dog"):
        (folder / "pictures" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("L", (4, 4)).save(folder / "pictures" / name / f"{i}.png")
    for name, content in {"a.tsv": "cat\tCat\ndog\tDog, domestic\n", "b.tsv": "cat\tKätzchen\r\ndog\tHund"}.items():
        (folder / name).write_bytes(content.encode("utf-16" if name == "b.tsv" else "utf-8"))
        yield folder / name


def read_table(path: Path) -> None:
    from fastproto.data import load_data
    from fastproto.prototypes.words import read_names

    folder = path.parent / "pictures"
    os.replace(path, folder / "classes.tsv")
    try:
        data = load_data("image-folder", root=str(folder))
    except ValueError as error:
        assert "classes.tsv" in str(error)
        raise ValueError(f"{path}: {error}") from error
    assert len(data.class_names) == 2
    os.replace(folder / "classes.tsv", path)
    assert all(name.strip() for name in read_names(path))


def configurations(folder: Path) -> Iterator[Path]:
    import yaml

    from fastproto.training import TrainConfig

    (folder / "full.yaml").write_text(yaml.safe_dump(TrainConfig().to_dict(), sort_keys=False))
    (folder / "short.yaml").write_text("data:\n  name: glyphs\n  num_classes: 30\nhead: {dim: 8}\nseed: 4\n")
    (folder / "object.yaml").write_text("seed: !!python/object/apply:os.system ['touch executed']\n")
    anchors = "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}, *a{i - 1}]\n" for i in range(1, 20))
    (folder / "laughs.yaml").write_text("a0: &a0 [x, x, x]\n" + anchors)
    yield from (folder / f"{name}.yaml" for name in ("full", "short", "object", "laughs"))


def read_configuration(path: Path) -> None:
    from fastproto.cli.train_command import parse_train

    parse_train(["--config", str(path)]).check()


def metrics(folder: Path) -> Iterator[Path]:
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "step", "seconds", "train/loss", "validation/accuracy"])
        writer.writerows([i // 4, i, 0.5 * i, 1 / (i + 1), 0.1 * i if i % 4 == 3 else ""] for i in range(12))
    yield folder / "metrics.csv"


def read_metrics(path: Path) -> None:
    from fastproto.training.metrics import MetricsFile

    assert all(int(row["step"]) < 9 for row in MetricsFile(path, 9).rows)


def class_means(folder: Path) -> Iterator[Path]:
    import numpy as np

    (folder / "class_means").mkdir()
    arrays = {"class_means": np.ones((5, 3), "f4"), "prototypes": np.ones((5, 3), "f4"), "assignment": np.arange(5)}
    np.savez(folder / "00000004.npz", **arrays)
    np.savez(folder / "00000005.npz", **arrays | {"assignment": np.array([Canary()] * 5, dtype=object)})
    yield from (folder / name for name in ("00000004.npz", "00000005.npz"))


def read_means(path: Path) -> None:
    from fastproto.training.renewals import read_class_means

    inside = path.parent / "class_means" / "00000004.npz"
    os.replace(path, inside)
    try:
        assert read_class_means(path.parent)["class_means"].shape[0] == 1
    except ValueError as error:
        raise ValueError(str(error).replace(str(inside), str(path))) from error


def checkpoints(folder: Path) -> Iterator[Path]:
    import torch

    from fastproto.data import load_data
    from fastproto.training import TrainConfig
    from fastproto.training.checkpoint_files import KEY
    from fastproto.training.classifier import Classifier

    config = TrainConfig()
    config.model.name, config.head.dim = "mlp", 4
    module = Classifier.for_data(config, load_data("digits"))
    module.configure_model()
    content = {KEY: module.description.to_dict(), "state_dict": module.state_dict(), "global_step": 7, "epoch": 1}
    torch.save(content, folder / "whole.ckpt")
    torch.save(content | {"epoch": Canary()}, folder / "canary.ckpt")
    yield from (folder / name for name in ("whole.ckpt", "canary.ckpt"))


def read_checkpoint(path: Path) -> None:
    from fastproto.training.classifier import load_classifier

    assert load_classifier(path).head.num_classes > 0


KINDS: dict[str, tuple[Callable[[Path], Iterator[Path]], Read, tuple[type[Exception], ...], int]] = {
    # valid files, the reader, its documented errors, and how many times the file's size its memory may be
    "pictures": (pictures, read_picture, (ValueError,), 8),
    "prototypes": (prototypes, read_prototypes, (ValueError, TypeError), 400),
    "words": (words, read_words, (ValueError,), 400),
    "tables": (tables, read_table, (ValueError,), 8),
    "configurations": (configurations, read_configuration, (ValueError,), 400),
    "metrics": (metrics, read_metrics, (ValueError,), 40),
    "class_means": (class_means, read_means, (ValueError,), 400),
    "checkpoints": (checkpoints, read_checkpoint, (ValueError,), 16),
}


# --- one kind, in a process of its own -------------------------------------------------------------------------------


def resident(field: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most since :func:`forget_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise AssertionError(f"no {field} in /proc/self/status")


def forget_peak() -> None:
    ctypes.CDLL(None).malloc_trim(0)  # what earlier calls have freed counts again
    Path("/proc/self/clear_refs").write_text("5")


def run_kind(kind: str, folder: Path, seconds: float) -> dict[str, Any]:
    """Read mutated files until the time is over; what was found, as plain numbers."""
    import torch

    torch.set_num_threads(1)
    make, read, errors, multiple = KINDS[kind]
    bases = [(path.suffix, path.read_bytes()) for path in make(folder)]
    allowed = MARGIN + max(4 * UNPACKED, 2 * PIXELS * PER_PIXEL if kind == "pictures" else 0)
    (folder / f"file{bases[0][0]}").write_bytes(bases[0][1])
    read(folder / f"file{bases[0][0]}")  # what is imported at first use is no memory of a file
    rng = random.Random(kind)
    counts = {"mutations": 0, "read": 0, "refused": 0, "peak": 0}
    slowest = 0.0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        number = counts["mutations"]
        suffix, content = bases[number % len(bases)]
        if number >= len(bases):  # at first as they are
            content = (mutate_within if rng.random() < 0.5 else mutate)(content, rng)
        path = folder / f"file{suffix}"
        path.write_bytes(content)
        forget_peak()
        before, began = resident("VmRSS"), time.monotonic()
        try:
            read(path)
            counts["read"] += 1
        except errors as error:
            message = str(error)
            assert path.name in message or kind == "configurations", f"unnamed: {message}"  # a setting has its own name
            assert "\n" not in message.strip(), f"several lines: {message}"
            counts["refused"] += 1
        taken = resident("VmHWM") - before
        slowest = max(slowest, time.monotonic() - began)
        counts["peak"] = max(counts["peak"], taken)
        assert taken <= allowed + multiple * len(content), f"{taken:,} bytes for a file of {len(content):,}"
        assert not Path("executed").exists(), "executed"
        counts["mutations"] += 1
    return counts | {"slowest": round(slowest, 2)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks of memory are read from Linux's /proc")
def test_mutated_files_are_read_or_refused(kind: str, tmp_path: Path) -> None:
    command = [sys.executable, __file__, kind, str(tmp_path), str(SECONDS)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=10 * SECONDS, check=False
    )
    assert done.returncode == 0, f"{kind} ended with {done.returncode}; its last file is in {tmp_path}\n{done.stderr}"
    found = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{kind}: {found['mutations']:,} files, {found['read']:,} read, {found['refused']:,} refused, at most "
        f"{found['peak'] / 2**20:.0f} MiB, slowest {found['slowest']} s"
    )
    assert found["mutations"] >= 100 and found["refused"] > 0


if __name__ == "__main__":
    print(json.dumps(run_kind(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]))))
