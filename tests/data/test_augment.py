"""Crops and mirror images, against one picture at a time."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import RandomResizedCrop

from fastproto.data import AffineJitter, CropFlip, ResizedCrop
from fastproto.data.augment import choose_augmentation, cut_and_scale, pixels_at


def windows(image: Tensor, padding: int) -> list[Tensor]:
    """Every crop of the picture [channels, H, W] with a black margin, and then their mirror images."""
    height, width = image.shape[1:]
    padded = F.pad(image, [padding] * 4)
    places = [(top, left) for top in range(2 * padding + 1) for left in range(2 * padding + 1)]
    plain = [padded[:, top : top + height, left : left + width] for top, left in places]
    return plain + [window.flip(2) for window in plain]


@pytest.mark.parametrize(("flip", "mirrored"), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)])
def test_crop_flip_makes_every_crop_equally_often(flip: float, mirrored: float) -> None:
    images = torch.rand(1, 3, 5, 7)
    known = windows(images[0], 2)
    made = CropFlip(padding=2, flip=flip)(images.expand(5000, 3, 5, 7))
    found = [next(i for i, window in enumerate(known) if torch.equal(one, window)) for one in made]
    counts = torch.bincount(torch.tensor(found), minlength=50).float() / 5000
    assert float((counts[:25] - (1 - mirrored) / 25).abs().max()) < 0.015
    assert float((counts[25:] - mirrored / 25).abs().max()) < 0.015
    assert made.is_contiguous()


def test_every_picture_of_a_batch_keeps_its_own_pixels() -> None:
    images = torch.rand(40, 2, 6, 6)
    for image, one in zip(images, CropFlip(padding=1)(images), strict=True):
        assert any(torch.equal(one, window) for window in windows(image, 1))


def test_pixels_at_crossings() -> None:
    images = torch.rand(3, 2, 5, 6)
    rows, columns = torch.randint(0, 5, (3, 4)), torch.randint(0, 6, (3, 7))
    expected = torch.stack([images[i][:, rows[i]][:, :, columns[i]] for i in range(3)])
    assert torch.equal(pixels_at(images, rows, columns), expected)


def test_cut_and_scale_equals_interpolation_of_each_window() -> None:
    images = torch.rand(30, 3, 12, 17, dtype=torch.float64)
    top, left = torch.randint(0, 10, (30,)), torch.randint(0, 15, (30,))
    height = torch.stack([torch.randint(1, 13 - int(t), ()) for t in top])
    width = torch.stack([torch.randint(1, 18 - int(s), ()) for s in left])
    mirrored = torch.rand(30, 1) < 0.5
    made = cut_and_scale(images, torch.stack([top, left, height, width], dim=1).float(), mirrored)
    for i in range(30):
        window = images[i : i + 1, :, top[i] : top[i] + height[i], left[i] : left[i] + width[i]]
        expected = F.interpolate(window, (12, 17), mode="bilinear", align_corners=False)[0]
        expected = expected.flip(2) if mirrored[i] else expected
        torch.testing.assert_close(made[i], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("make", [ResizedCrop, lambda: AffineJitter(rotation=5, scale=0.15, translation=0.1)])
def test_windows_are_as_exact_where_tensors_are_bfloat16_by_default(make: Callable[[], nn.Module]) -> None:
    """As in a step of a run with the precision bf16-true."""
    images, augment = torch.rand(4, 3, 200, 200), make()
    torch.manual_seed(0)
    expected = augment(images)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        found = augment(images)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, expected)


def test_windows_have_the_distribution_of_torchvision() -> None:
    """Means and deviations of 4,000 windows agree within five standard errors; every window lies in the picture."""
    size, count = (48, 40), 4000
    ours = ResizedCrop().boxes(count, size, torch.device("cpu"))
    picture = torch.zeros(3, *size)
    theirs = torch.tensor([RandomResizedCrop.get_params(picture, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(count)])
    top, left, height, width = ours.unbind(1)
    assert bool((ours == ours.round()).all()) and float(ours.min()) >= 0
    assert float((top + height).max()) <= 48 and float((left + width).max()) <= 40 and float(width.min()) >= 1
    for our, their in zip(ours.T, theirs.float().T, strict=True):
        error = 5 * float(their.std()) * math.sqrt(2 / count)
        assert abs(float(our.mean() - their.mean())) < error
        assert abs(float(our.std() - their.std())) < error


def test_a_window_that_never_fits_is_the_whole_picture() -> None:
    boxes = ResizedCrop(scale=(1.0, 1.0), ratio=(1.2, 1.3)).boxes(20, (16, 16), torch.device("cpu"))
    assert boxes.unique(dim=0).tolist() == [[0, 0, 16, 16]]
    images = torch.rand(4, 3, 16, 16)
    torch.testing.assert_close(ResizedCrop(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0)(images), images)
    torch.testing.assert_close(ResizedCrop(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=1.0)(images), images.flip(3))


@pytest.mark.parametrize("make", [CropFlip, ResizedCrop])
def test_seeds_dtypes_and_evaluation(make: type[CropFlip] | type[ResizedCrop]) -> None:
    images, augmentation = torch.rand(8, 3, 16, 16), make()
    torch.manual_seed(5)
    first, second = augmentation(images), augmentation(images)
    torch.manual_seed(5)
    assert torch.equal(augmentation(images), first) and not torch.equal(first, second)
    assert augmentation(images.double()).dtype == torch.float64
    assert augmentation(images[:0]).shape == (0, 3, 16, 16)
    assert float(first.min()) >= 0 and float(first.max()) <= 1
    assert augmentation.eval()(images) is images


@pytest.mark.parametrize(
    ("make", "values"),
    [
        (CropFlip, {"padding": -1}),
        (CropFlip, {"flip": 1.5}),
        (ResizedCrop, {"scale": (0.0, 1.0)}),
        (ResizedCrop, {"scale": (0.5, 0.2)}),
        (ResizedCrop, {"ratio": (2.0, 1.0)}),
        (ResizedCrop, {"flip": -0.1}),
    ],
)
def test_augmentations_refuse_impossible_values(make: type[nn.Module], values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"{make.__name__} got .*{next(iter(values))}="):
        make(**values)


def test_choices() -> None:
    jitter, crop = AffineJitter(rotation=10), CropFlip(flip=0.5)
    assert choose_augmentation("auto", jitter) is jitter and choose_augmentation("jitter", jitter) is jitter
    assert choose_augmentation("none", crop) is None and choose_augmentation("auto", crop) is crop
    for own, flip in ((jitter, 0.0), (crop, 0.5)):
        found = [choose_augmentation("crop_flip", own), choose_augmentation("resized_crop", own)]
        assert [type(one) for one in found] == [CropFlip, ResizedCrop]
        assert [one.flip for one in found if one is not None] == [flip, flip]
    found_jitter = choose_augmentation("jitter", crop)
    assert isinstance(found_jitter, AffineJitter) and found_jitter.rotation == 5 and found_jitter.flip == 0.5
