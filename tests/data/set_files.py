"""Small data sets in the files that the published ones come in."""

from __future__ import annotations

import hashlib
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
import torchvision
from torch import Tensor

from .helpers import paint

Pictures = tuple[Tensor, Tensor]


def pictures(labels: list[int], size: int, seed: int) -> Pictures:
    """Random uint8 [N, 3, size, size], whose class shows in the first channel, and labels int64 [N]."""
    images = torch.randint(0, 256, (len(labels), 3, size, size), generator=torch.Generator().manual_seed(seed))
    found = torch.tensor(labels)
    images[:, 0] = 20 * found[:, None, None]
    return images.to(torch.uint8), found


def write_cifar(
    root: Path, patch: pytest.MonkeyPatch, name: str, train: Pictures, test: Pictures, names: list[str]
) -> Path:
    """Pickled batches below ``root``, whose checksums torchvision then expects."""
    kind = getattr(torchvision.datasets, name.upper())
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    key = "labels" if name == "cifar10" else "fine_labels"
    shares = [part.tensor_split(len(kind.train_list)) for part in train]
    for attribute, batches in (("train_list", list(zip(*shares, strict=True))), ("test_list", [test])):
        listed = []
        for (file, _), (images, labels) in zip(getattr(kind, attribute), batches, strict=True):
            entry = {"data": images.flatten(1).numpy(), key: labels.tolist()}
            listed.append([file, _write(folder / file, pickle.dumps(entry))])
        patch.setattr(kind, attribute, listed)
    content = pickle.dumps({kind.meta["key"]: names})
    patch.setattr(kind, "meta", {**kind.meta, "md5": _write(folder / kind.meta["filename"], content)})
    return root


def pack_cifar(root: Path, patch: pytest.MonkeyPatch, name: str) -> Path:
    """Put the folder of batches into the archive that is fetched, and remove it."""
    kind = getattr(torchvision.datasets, name.upper())
    folder, archive = root / kind.base_folder, root / kind.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, kind.base_folder)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    patch.setattr(kind, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    return archive


def write_svhn(root: Path, patch: pytest.MonkeyPatch, train: Pictures, test: Pictures) -> Path:
    """Files of MATLAB: pictures [32, 32, 3, N], labels [N, 1] with 10 for the digit 0."""
    kind, listed = torchvision.datasets.SVHN, {}
    root.mkdir(parents=True, exist_ok=True)
    for part, (images, labels) in (("train", train), ("test", test)):
        url, file, _ = kind.split_list[part]
        digits = np.where(labels.numpy() == 0, 10, labels.numpy()).astype(np.uint8)[:, None]
        scipy.io.savemat(root / file, {"X": images.permute(2, 3, 1, 0).numpy(), "y": digits})
        listed[part] = [url, file, hashlib.md5((root / file).read_bytes()).hexdigest()]
    patch.setattr(kind, "split_list", {**kind.split_list, **listed})
    return root


def write_stl10(root: Path, patch: pytest.MonkeyPatch, train: Pictures, test: Pictures, names: list[str]) -> Path:
    """Bytes of pictures [N, 3, column, row] and of labels from 1."""
    kind = torchvision.datasets.STL10
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    content = {"unlabeled_X.bin": b""}
    for part, (images, labels) in (("train", train), ("test", test)):
        content[f"{part}_X.bin"] = images.transpose(2, 3).contiguous().numpy().tobytes()
        content[f"{part}_y.bin"] = (labels + 1).to(torch.uint8).numpy().tobytes()
    for attribute in ("train_list", "test_list"):
        listed = [[file, _write(folder / file, content[file])] for file, _ in getattr(kind, attribute)]
        patch.setattr(kind, attribute, listed)
    (folder / kind.class_names_file).write_text("\n".join(names) + "\n")
    return root


WNIDS = ("n01443537", "n01629819", "n01641577")


def write_imagenet(root: Path, per_class: int = 6, size: tuple[int, int] = (40, 30)) -> Path:
    for part in ("train", "val"):
        for label, wnid in enumerate(WNIDS):
            for i in range(per_class):
                file = f"{wnid}_{i}.JPEG" if part == "train" else f"ILSVRC2012_val_0000{label}{i}.JPEG"
                paint(root / part / wnid / file, (80 * label, 20 * i, 0), size=size)
    return root


def write_imagenet200(root: Path, per_class: int = 6) -> Path:
    """With boxes beside the pictures, as they come."""
    rows = []
    for label, wnid in enumerate(WNIDS):
        for i in range(per_class):
            paint(root / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", (80 * label, 20 * i, 0), size=(64, 64))
            paint(root / "val" / "images" / f"val_{len(rows)}.JPEG", (80 * label, 0, 200), size=(64, 64))
            rows.append(f"val_{len(rows)}.JPEG\t{wnid}\t0\t32\t44\t62\n")
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t62\t62\n")
    paint(root / "test" / "images" / "test_0.JPEG", (0, 0, 0))
    (root / "val" / "val_annotations.txt").write_text("".join(reversed(rows)))
    (root / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in WNIDS))
    (root / "words.txt").write_text(f"{WNIDS[0]}\tgoldfish, Carassius auratus\nn00001740\tentity\n")
    return root


def write_lists(folder: Path, root: Path) -> Path:
    """The lists of a long tail of :func:`write_imagenet`: 4, 2 and 1 training pictures; the labels go backwards."""
    folder.mkdir(exist_ok=True)
    listed: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for label, wnid in enumerate(reversed(WNIDS)):
        files = sorted((root / "train" / wnid).iterdir())
        listed["train"] += [f"train/{wnid}/{file.name} {label}" for file in files[: (4, 2, 1)[label]]]
        listed["val"] += [f"train/{wnid}/{files[-1].name} {label}"]
        listed["test"] += [f"val/{wnid}/{file.name} {label}" for file in sorted((root / "val" / wnid).iterdir())[:2]]
    for part, lines in listed.items():
        (folder / f"ImageNet_LT_{part}.txt").write_text("\n".join(lines) + "\n")
    return folder


def _write(path: Path, content: bytes) -> str:
    """Its MD5 sum."""
    path.write_bytes(content)
    return hashlib.md5(content).hexdigest()
