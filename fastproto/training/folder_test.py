"""The accuracy of a trained classifier on a folder of pictures, per class too, with its confusions."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import coo_array
from torch import Tensor

from fastproto.data.picture_folder import PictureFolder
from fastproto.plots import draw_confusion
from fastproto.support.atomic_files import write_memory
from fastproto.support.spelling import shown
from fastproto.training.classifier import Classifier
from fastproto.training.features import Report, check_any_read, features_of

TOP = 5


@dataclass(frozen=True)
class FolderTest:
    """``confusion`` counts pictures by class (row) and predicted class (column): int64 [C, C], each pair once."""

    class_names: tuple[str, ...]
    confusion: coo_array
    hits_top5: int | None  # None with at most five classes
    unread: int

    @property
    def pictures(self) -> int:
        return int(self.confusion.sum())

    @property
    def top1(self) -> float:
        return int(self.confusion.trace()) / self.pictures

    @property
    def top5(self) -> float | None:
        return None if self.hits_top5 is None else self.hits_top5 / self.pictures

    def per_class(self) -> list[tuple[str, int, float]]:
        """(name, pictures, accuracy) of each class that has pictures."""
        counts, right = self.confusion.sum(1).tolist(), self.confusion.diagonal().tolist()
        named = zip(self.class_names, counts, right, strict=True)
        return [(name, count, hits / count) for name, count, hits in named if count]

    def errors(self) -> list[tuple[str, str, int]]:
        """(class, predicted class, pictures) of the wrong labels, the most frequent first."""
        counts, pairs = self.confusion.data, (self.confusion.row, self.confusion.col)
        triples = zip(counts.tolist(), *(labels.tolist() for labels in pairs), strict=True)
        listed = sorted((-count, i, j) for count, i, j in triples if i != j)
        return [(self.class_names[i], self.class_names[j], -count) for count, i, j in listed]


def labels_of_run(folder: PictureFolder, class_names: Sequence[str]) -> Tensor:
    """The labels int64 [N] of the pictures as the run numbers its classes, found by name.

    Raises:
        ValueError: no class folders, a folder that is no class of the run, or a name that two classes have.
    """
    known = {name: label for label, name in enumerate(class_names)}
    expected = (
        f"expected folders named as the classes of the run ({', '.join(map(shown, class_names[:3]))}, ...), "
        "or lines folder<TAB>class in classes.tsv"
    )
    if folder.labels is None:
        raise ValueError(f"the folder {folder.top} has pictures without a class; {expected}")
    unknown = next((name for name in folder.class_names if name not in known), None)
    if unknown is not None:
        raise ValueError(f"the folder {folder.top} has {shown(unknown)}, which is no class of the run; {expected}")
    if len(known) < len(class_names):
        raise ValueError("two classes of the run have one name; expected different names, so that folders tell them")
    return torch.tensor([known[name] for name in folder.class_names])[folder.labels]


def tally(
    classifier: Classifier, paths: Sequence[Path], labels: Tensor, report: Report, *, batch_size: int
) -> FolderTest:
    """Label the pictures and count.

    Raises:
        ValueError: no picture can be read.
    """
    count, hits = len(classifier.class_names), 0
    rows, columns = [labels[:0]], [labels[:0]]
    for numbers, features in features_of(classifier, paths, report, batch_size=batch_size):
        predicted, right = classifier.head.predict(features, min(TOP, count)).cpu(), labels[numbers]
        rows.append(right)
        columns.append(predicted[:, 0])
        hits += int((predicted == right[:, None]).any(1).sum())
    pairs = torch.cat(rows).numpy(), torch.cat(columns).numpy()
    read = len(pairs[0])
    check_any_read(read, len(paths))
    confusion = coo_array((np.ones(read, np.int64), pairs), shape=(count, count))
    confusion.sum_duplicates()
    top5 = hits if count > TOP else None
    return FolderTest(classifier.class_names, confusion, top5, len(paths) - read)


def write_results(found: FolderTest, out: Path, *, checkpoint: str, folder: str) -> None:
    """Write ``test.json`` and ``confusion.png`` into ``out``.

    Raises:
        OSError: a file cannot be written.
    """
    content = {
        "checkpoint": checkpoint,
        "folder": folder,
        "pictures": found.pictures,
        "unreadable": found.unread,
        "accuracy_top1": found.top1,
        "accuracy_top5": found.top5,
        "classes": {name: {"pictures": n, "accuracy": accuracy} for name, n, accuracy in found.per_class()},
        "errors": [{"class": a, "predicted": b, "pictures": count} for a, b, count in found.errors()],
    }
    write_memory(out / "test.json", io.BytesIO(json.dumps(content, indent=1).encode()))
    title = f"Predicted classes of {found.pictures:,} pictures, {100 * found.top1:.1f} % right"
    draw_confusion(found.confusion, found.class_names, out / "confusion.png", title=title)
