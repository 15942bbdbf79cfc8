"""Long-tailed training parts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fastproto.data import ImagesInMemory, load_data
from fastproto.data.imbalance import long_tail_counts, long_tailed

from .helpers import image_folder, in_memory


def test_counts_are_those_of_the_published_sets() -> None:
    """CIFAR-100-LT has 10,847 and 19,573 training pictures at 0.01 and 0.1, CIFAR-10-LT 12,406 at 0.01."""
    assert int(long_tail_counts(500, 100, 0.01).sum()) == 10847
    assert int(long_tail_counts(500, 100, 0.1).sum()) == 19573
    assert int(long_tail_counts(5000, 10, 0.01).sum()) == 12406
    assert long_tail_counts(5000, 10, 0.01)[[0, -1]].tolist() == [5000, 50]
    assert long_tail_counts(10, 4, 0.001).tolist() == [10, 1, 1, 1]
    assert long_tail_counts(7, 3, 1.0).tolist() == [7, 7, 7]


def test_pictures_keep_their_order_and_labels() -> None:
    labels = torch.randint(0, 5, (300,))
    part = ImagesInMemory(torch.arange(300)[:, None, None, None].to(torch.uint8), labels)
    kept = long_tailed(part, 5, 0.1)
    assert isinstance(kept, ImagesInMemory)
    counts = torch.bincount(labels)
    limits = long_tail_counts(int(counts.max()), 5, 0.1)
    assert torch.bincount(kept.labels).tolist() == torch.minimum(counts, limits).tolist()
    indices = [int((part.images.flatten() == one).nonzero()[0]) for one in kept.images.flatten()[:20]]
    assert indices == sorted(indices)
    again = long_tailed(part, 5, 0.1)
    assert isinstance(again, ImagesInMemory) and torch.equal(again.images, kept.images)


def test_only_the_training_part_has_a_tail(tmp_path: Path) -> None:
    whole, tail = load_data("digits"), load_data("digits", imbalance=0.1)
    for before, after in list(zip(in_memory(whole), in_memory(tail), strict=True))[1:]:
        assert torch.equal(before.images, after.images)
    counts = torch.bincount(tail.train.labels)
    largest = int(torch.bincount(whole.train.labels).max())
    assert counts[1:].tolist() == long_tail_counts(largest, 10, 0.1)[1:].tolist()

    root = image_folder(tmp_path)
    flat = load_data("image-folder", root=root, imbalance=0.2)
    assert torch.bincount(flat.train.labels).tolist() == [15, 6, 3]
    assert torch.bincount(flat.validation.labels).tolist() == [2, 2, 2]
    assert [path.parent.name for path in flat.train.paths] == ["ant"] * 15 + ["bee"] * 6 + ["cat"] * 3  # type: ignore[attr-defined]
    image, label = flat.train[20]
    assert int(image[0, 0, 0]) == 80 * int(label)


@pytest.mark.parametrize("imbalance", [0.0, -0.5, 1.5, float("nan")])
def test_an_imbalance_outside_of_its_range(imbalance: float) -> None:
    with pytest.raises(ValueError, match=rf"imbalance={imbalance} is not in \(0, 1\]: give the size of the last class"):
        load_data("digits", imbalance=imbalance)
