"""Pictures become tensors: modes, sizes, normalisation, and the jitter of training images."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image, ImageDraw

from fastproto.data import (
    AffineJitter,
    Preprocessing,
)


def test_preprocessing_survives_json() -> None:
    before = Preprocessing(32, 3, (0.1, 0.2, 0.3), (1.0, 2.0, 3.0), light_on_dark=True)
    assert Preprocessing.from_dict(json.loads(json.dumps(before.to_dict()))) == before
    with pytest.raises(ValueError, match=r"got the keys \['image_size'\]: expected"):
        Preprocessing.from_dict({"image_size": 3})


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
@pytest.mark.parametrize("channels", [1, 3])
def test_read_takes_every_mode(mode: str, channels: int) -> None:
    reader = Preprocessing(8, channels, (0.5,) * channels, (0.5,) * channels)
    pixels = reader.read(Image.new("RGB", (20, 11), "white").convert(mode))
    assert pixels.dtype == torch.uint8 and pixels.shape == (channels, 8, 8)
    assert int(pixels.min()) >= 254


def test_read_scales_the_shorter_side_and_crops_the_centre() -> None:
    image = Image.new("RGB", (40, 10), "black")
    ImageDraw.Draw(image).rectangle((15, 0, 24, 9), fill="white")
    assert int(Preprocessing(10, 1, (0.0,), (1.0,)).read(image).min()) == 255


def test_read_keeps_pixels_of_the_right_size() -> None:
    pixels = torch.randint(0, 256, (5, 5, 3), dtype=torch.uint8)
    image = Image.fromarray(pixels.numpy())
    assert torch.equal(Preprocessing(5, 3, (0.0,) * 3, (1.0,) * 3).read(image), pixels.permute(2, 0, 1))


def test_read_turns_transparency_white_and_photographs_upright() -> None:
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert int(Preprocessing(4, 1, (0.0,), (1.0,)).read(clear).min()) == 255
    sideways = Image.new("L", (2, 2), 0)
    sideways.putpixel((0, 0), 255)
    sideways.getexif()[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    assert Preprocessing(2, 1, (0.0,), (1.0,)).read(sideways)[0].tolist() == [[0, 255], [0, 0]]


def test_light_on_dark_reads_ink_and_chalk_alike() -> None:
    ink = Image.new("L", (8, 8), 255)
    ImageDraw.Draw(ink).rectangle((3, 1, 4, 6), fill=0)
    chalk = Image.eval(ink, lambda value: 255 - value)
    reader = Preprocessing(8, 1, (0.0,), (1.0,), light_on_dark=True)
    assert torch.equal(reader.read(ink), reader.read(chalk))
    assert int(reader.read(ink)[0, 3, 3]) == 255


def test_normalise_centres_and_checks() -> None:
    reader = Preprocessing(2, 3, (0.1, 0.2, 0.3), (1.0, 2.0, 4.0))
    images = torch.rand(5, 3, 2, 2, dtype=torch.float64)
    expected = torch.stack([(images[:, c] - m) / s for c, (m, s) in enumerate(((0.1, 1), (0.2, 2), (0.3, 4)))], dim=1)
    torch.testing.assert_close(reader.normalise(images), expected)
    for bad in (torch.zeros(1, 3, 2, 2, dtype=torch.uint8), torch.zeros(1, 1, 2, 2), torch.zeros(3, 2, 2)):
        with pytest.raises(ValueError, match=r"give floating point \[B, 3, H, W\]"):
            reader.normalise(bad)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, 1, (0.0,), (1.0,)), "image_size=0"),
        ((8, 2, (0.0,) * 2, (1.0,) * 2), "channels=2"),
        ((8, 3, (0.0,), (1.0,)), "give 3 of each"),
        ((8, 1, (0.0,), (0.0,)), "std > 0"),
    ],
)
def test_preprocessing_refuses_nonsense(arguments: tuple[int, int, tuple[float], tuple[float]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Preprocessing(*arguments)


def test_jitter_of_nothing_and_in_evaluation_changes_nothing() -> None:
    images = torch.rand(4, 3, 9, 7)
    torch.testing.assert_close(AffineJitter()(images), images)
    strong = AffineJitter(rotation=90, scale=0.5, shear=20, translation=0.5, flip=0.5)
    assert strong.eval()(images) is images
    assert strong.train()(images[:0]).shape == (0, 3, 9, 7)


def test_jitter_differs_by_picture_and_follows_the_global_seed() -> None:
    images = torch.rand(1, 1, 16, 16).expand(6, -1, -1, -1)
    jitter = AffineJitter(rotation=10, scale=0.1, shear=5, translation=0.1)
    torch.manual_seed(5)
    first = jitter(images)
    torch.manual_seed(5)
    assert torch.equal(jitter(images), first)
    assert not torch.equal(jitter(images), first)
    assert not torch.equal(first[0], first[1])
    assert first.shape == images.shape and float(first.min()) >= 0 and float(first.max()) <= 1


def test_jitter_flips_and_repeats_the_border() -> None:
    images = torch.rand(3, 2, 5, 6)
    torch.testing.assert_close(AffineJitter(flip=1.0)(images), images.flip(3))
    flat = torch.full((8, 1, 6, 6), 0.7)
    torch.testing.assert_close(AffineJitter(rotation=45, scale=0.5, shear=30, translation=0.9)(flat), flat)


def test_jitter_shift_is_within_its_limit() -> None:
    images = torch.zeros(200, 1, 21, 21)
    images[:, :, 10, 10] = 1
    torch.manual_seed(0)
    moved = AffineJitter(translation=0.2)(images)[:, 0]
    columns = (moved.sum(1) * torch.arange(21)).sum(1) / moved.sum((1, 2))
    assert float((columns - 10).abs().max()) <= 0.2 * 21 + 1e-3
    assert float((columns - 10).abs().max()) > 0.15 * 21


@pytest.mark.parametrize("bad", [{"rotation": -1}, {"scale": 1.0}, {"flip": 1.5}, {"translation": float("nan")}])
def test_jitter_refuses_limits_out_of_range(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"AffineJitter got {next(iter(bad))}="):
        AffineJitter(**bad)
