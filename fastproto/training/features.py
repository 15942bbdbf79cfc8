"""Features of picture files by a trained classifier, in batches; files that cannot be read are reported and skipped."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from fastproto.data.decode import reason, with_picture
from fastproto.data.decode_all import picture_loader, processes_for
from fastproto.data.optional import require
from fastproto.data.preprocessing import Preprocessing
from fastproto.training.classifier import Classifier

Read = Tensor | str  # a picture uint8 [channels, H, W], or the sentence that says why there is none
Batch = tuple[list[int], Tensor | None, list[str]]  # numbers of files, their pictures [B, channels, H, W], sentences
Report = Callable[[str], None]


class _Readings(Dataset[Any]):
    """Pictures by the number of their file."""

    def __init__(self, paths: Sequence[Path], preprocessing: Preprocessing) -> None:
        self.paths, self.preprocessing = paths, preprocessing

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[int, Read]:
        return index, read_picture(self.paths[index], self.preprocessing)


def read_picture(path: Path, preprocessing: Preprocessing) -> Read:
    """Read a picture as the training did, uint8 [channels, H, W]; a sentence if it cannot be read."""
    if path.is_dir():
        return f"the folder {path} has no pictures; expected some, or an image"
    if not path.exists():
        return f"no image {path}; expected a file that Pillow can read"
    try:
        return with_picture(path, preprocessing.read)
    except ValueError as error:
        why = reason(error.__cause__)
        return f"{path} is not a readable image ({why}); expected a whole PNG, JPEG or the like"


@torch.no_grad()
def features_of(
    classifier: Classifier, paths: Sequence[Path], report: Report, *, batch_size: int = 64
) -> Iterator[tuple[list[int], Tensor]]:
    """Yield the numbers of the files of a batch, and their features [B, D] on the classifier's device.

    A bar on standard error shows the progress after two seconds, on a terminal.

    Args:
        report: called with the sentence for each file that cannot be read.
    """
    tqdm = require("tqdm", "reading pictures").tqdm
    device = next(classifier.backbone.parameters()).device
    with warnings.catch_warnings(), tqdm(total=len(paths), delay=2, disable=None, leave=False, unit="picture") as bar:
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        files, processes = _Readings(paths, classifier.preprocessing), processes_for(paths)
        for numbers, pictures, sentences in picture_loader(files, batch_size, processes=processes, collate=_collate):
            for sentence in sentences:
                with tqdm.external_write_mode():
                    report(sentence)
            if pictures is not None:
                yield numbers, classifier(pictures.to(device))
            bar.update(len(numbers) + len(sentences))


def check_any_read(read: int, files: int) -> None:
    """Raise ValueError if no file could be read."""
    if not read:
        raise ValueError(f"none of the {files} pictures can be read; expected at least one")


def _collate(batch: list[tuple[int, Read]]) -> Batch:
    """One tensor for all pictures: a process sends each tensor as open files, of which there may be few."""
    pictures = {index: found for index, found in batch if isinstance(found, Tensor)}
    sentences = [found for _, found in batch if isinstance(found, str)]
    return list(pictures), torch.stack(list(pictures.values())) if pictures else None, sentences
