"""Every kind of file that is read: valid files of it, how it is read, and the errors that are documented."""

from __future__ import annotations

import csv
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PIXELS = 2**20  # Pillow's limit here; it refuses pictures of more than twice as many
Read = Callable[[Path], object]


class Canary:
    """Leaves a file behind where it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)


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
    "configurations": (configurations, read_configuration, (ValueError, FileNotFoundError), 400),
    "metrics": (metrics, read_metrics, (ValueError,), 40),
    "class_means": (class_means, read_means, (ValueError,), 400),
    "checkpoints": (checkpoints, read_checkpoint, (ValueError,), 16),
}
