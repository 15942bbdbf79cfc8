"""Pictures of any depth, mode, orientation, size and damage: the values a viewer would show, or one sentence."""

from __future__ import annotations

import io
import logging
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin

from fastproto.data.decode import FORMATS, picture_size, with_picture

from .helpers import reader, through

RAMP = np.linspace(0, 65535, 1024).reshape(32, 32)


def png(size: tuple[int, int], depth: int, colour: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of any depth, some of which Pillow does not write; ``rows`` begin with a filter byte each."""
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )


# --- depth -----------------------------------------------------------------------------------------------------------

DEEP = {
    "16 bits": RAMP.astype(np.uint16),
    "32 bits": RAMP.astype(np.int32),
    "12 bits in 32": (RAMP / 16).astype(np.int32),
    "negative": (RAMP - 40000).astype(np.int32),
    "huge": ((RAMP - 32768) * 65000).astype(np.int32),
    "0..1": (RAMP / 65535).astype(np.float32),
    "0..255": (RAMP / 257).astype(np.float32),
    "0..65535": RAMP.astype(np.float32),
    "metres": (RAMP / 6553.5).astype(np.float32),
    "Celsius": (RAMP / 2000 - 10).astype(np.float32),
    "1e38": ((RAMP / 65535 - 0.5) * 6e38).astype(np.float32),
    "tiny": (RAMP * 1e-40).astype(np.float32),
}


@pytest.mark.parametrize("name", DEEP)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_ramp_of_any_depth_stays_a_ramp(name: str, channels: int) -> None:
    pixels = reader(channels=channels).read(through(Image.fromarray(DEEP[name]), "TIFF"))
    expected = torch.from_numpy((RAMP / 257).round().astype(np.uint8))
    assert pixels.shape == (channels, 32, 32)
    assert int((pixels.int() - expected.int()).abs().max()) <= 1


def test_sixteen_bits_are_divided_by_65535() -> None:
    dark = np.array([[0, 128, 129, 257], [4095, 32768, 65407, 65535]], np.uint16)
    expected = [[0, 0, 1, 1], [16, 128, 255, 255]]
    wide = np.repeat(dark, 2, 0)
    plain = io.BytesIO(b"P5 4 4 65535\n" + wide.astype(">u2").tobytes())  # Pillow writes such files from 11 on
    for image in (*(through(Image.fromarray(wide), kind) for kind in ("PNG", "TIFF")), Image.open(plain)):
        assert reader(4).read(image)[0].tolist() == [expected[0]] * 2 + [expected[1]] * 2
    big = Image.frombytes("I;16B", (4, 4), np.repeat(dark, 2, 0).astype(">u2").tobytes())
    assert reader(4).read(big)[0, ::2].tolist() == expected


def test_what_the_tags_of_a_tiff_say() -> None:
    values = np.array([[0, 65535], [257, 65278]], np.uint16)
    inverted = TiffImagePlugin.ImageFileDirectory_v2()
    inverted[262] = 0  # white is zero
    assert reader(2).read(through(Image.fromarray(values), "TIFF", tiffinfo=inverted))[0].tolist() == [
        [255, 0],
        [254, 1],
    ]
    halves = Image.fromarray(np.array([[0, 2**31 - 1], [-(2**31), -1]], np.int32))
    file = io.BytesIO()
    halves.save(file, "TIFF")
    whole = file.getvalue().replace(struct.pack("<HHIHH", 339, 3, 1, 2, 0), struct.pack("<HHIHH", 339, 3, 1, 1, 0))
    assert whole != file.getvalue()
    assert reader(2).read(Image.open(io.BytesIO(whole)))[0].tolist() == [[0, 127], [128, 255]]


def test_twelve_bits_of_a_tiff_are_divided_by_4095() -> None:
    packed = bytes([0x00, 0x0F, 0xFF, 0x80, 0x00, 0x10])  # 0x000 0xFFF; 0x800 0x010
    entries = [(256, 3, 2), (257, 3, 2), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 134), (277, 3, 1)]
    entries += [(278, 3, 2), (279, 4, 6)]
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    directory = struct.pack("<H", len(entries)) + body + struct.pack("<I", 0)
    data = b"II*\0" + struct.pack("<I", 8) + directory
    data += bytes(134 - len(data)) + packed
    assert reader(2).read(Image.open(io.BytesIO(data)))[0].tolist() == [[0, 255], [128, 1]]


def test_not_a_number_is_black_and_infinity_white() -> None:
    values = np.array([[np.nan, np.inf], [-np.inf, 0.5]], np.float32)
    assert reader(2).read(through(Image.fromarray(values), "TIFF"))[0].tolist() == [[0, 255], [0, 128]]
    values[1, 1] = np.nan
    assert reader(2).read(Image.fromarray(values))[0].tolist() == [[0, 255], [0, 0]]


@pytest.mark.parametrize(
    ("value", "kind", "grey"),
    [
        *((0.5, "f4", 128), (1, "f4", 255), (0, "f4", 0), (200, "f4", 200), (1e30, "f4", 255), (-3, "f4", 0)),
        *((0, "i4", 0), (255, "i4", 255), (65535, "i4", 255), (1285, "i4", 5), (-(2**31), "i4", 0)),
        (2**31 - 1, "i4", 255),
    ],
)
def test_a_plain_area_has_the_grey_of_its_scale(value: float, kind: str, grey: int) -> None:
    assert reader(4).read(Image.fromarray(np.full((4, 4), value, kind))).unique().tolist() == [grey]


def test_sixteen_bits_of_colour_and_of_transparency() -> None:
    grey = struct.pack(">HHH", 0, 32768, 65535)
    transparent = (b"tRNS", struct.pack(">H", 32768))
    data = png((3, 1), 16, 0, b"\0" + grey, transparent)
    assert reader(1).read(Image.open(io.BytesIO(data))).tolist() == [[[255]]]  # the centre is transparent: white
    colour = png((1, 1), 16, 2, b"\0" + struct.pack(">HHH", 65535, 32896, 0))
    assert reader(1, 3).read(Image.open(io.BytesIO(colour))).flatten().tolist() == [255, 128, 0]
    odd = png(
        (1, 1), 16, 2, b"\0" + struct.pack(">HHH", 65535, 32896, 0), (b"tRNS", struct.pack(">HHH", 9, 999, 65535))
    )
    assert reader(1, 3).read(Image.open(io.BytesIO(odd))).shape == (3, 1, 1)
    with_alpha = png((1, 1), 16, 4, b"\0" + struct.pack(">HH", 0, 32768))
    assert 126 <= int(reader(1).read(Image.open(io.BytesIO(with_alpha)))) <= 128


# --- mode ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_white_is_white_in_every_mode(mode: str, channels: int) -> None:
    image = Image.new("RGB", (20, 11), "white")
    image = image.convert("RGBA" if mode == "RGBa" else "LA" if mode in ("La", "PA") else "RGB").convert(mode)
    assert int(reader(8, channels).read(image).min()) >= 254


@pytest.mark.parametrize("mode", ["P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"])
def test_red_is_red_in_every_mode(mode: str) -> None:
    pixels = reader(4, 3).read(Image.new("RGB", (4, 4), (255, 0, 0)).convert(mode))[:, 0, 0].tolist()
    assert pixels[0] >= 250 and max(pixels[1:]) <= 5


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P"])
def test_a_transparent_colour_is_white(mode: str, tmp_path: Path) -> None:
    image = Image.new("RGB", (2, 1), "black")
    image.putpixel((0, 0), (255, 255, 255))
    image = image.convert(mode) if mode != "P" else image.quantize(2)
    black = {"1": 0, "L": 0, "RGB": (0, 0, 0), "P": image.getpixel((1, 0))}[mode]
    image.save(tmp_path / "a.png", transparency=black)
    for channels in (1, 3):
        assert int(with_picture(tmp_path / "a.png", reader(1, channels).read).min()) == 255


@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "PNG", "WEBP"])
@pytest.mark.parametrize("turned", range(1, 9))
def test_every_orientation_is_upright(turned: int, kind: str) -> None:
    shown = Image.fromarray(np.kron(np.array([[0, 80], [160, 240]], np.uint8), np.ones((8, 8), np.uint8)))
    how = Image.Transpose
    inverse = {2: how.FLIP_LEFT_RIGHT, 3: how.ROTATE_180, 4: how.FLIP_TOP_BOTTOM, 5: how.TRANSPOSE}
    inverse |= {6: how.ROTATE_90, 7: how.TRANSVERSE, 8: how.ROTATE_270}
    stored = shown.transpose(inverse[turned]) if turned > 1 else shown
    exif = Image.Exif()
    exif[0x0112] = turned
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "JPEG" else {}
    pixels = reader(16).read(through(stored.convert("RGB"), kind, exif=exif, **options))
    assert int((pixels[0].int() - torch.from_numpy(np.array(shown)).int()).abs().max()) <= 3


def test_damaged_exif_is_ignored(tmp_path: Path) -> None:
    for exif in (b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12"):
        Image.new("L", (4, 4), 7).save(tmp_path / "a.jpg", exif=exif)
        assert with_picture(tmp_path / "a.jpg", reader(4).read).unique().tolist() == [7]


def test_the_first_frame_of_several() -> None:
    frames = [Image.new("L", (4, 4), grey) for grey in (10, 200)]
    for kind in ("GIF", "TIFF", "WEBP", "PNG"):
        options = {"lossless": True} if kind == "WEBP" else {}
        image = through(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert reader(4).read(image).unique().tolist() == [10]


# --- size ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (30000, 1), (2, 3)])
def test_any_shape_of_picture(size: tuple[int, int]) -> None:
    assert reader(8, 3).read(Image.new("RGB", size, (1, 2, 3)))[:, 4, 4].tolist() == [1, 2, 3]


# --- damage ----------------------------------------------------------------------------------------------------------


def damaged_files() -> dict[str, bytes]:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8))
    found = {"empty": b"", "page": b"<html></html>", "drawing": b"<svg/>", "text": b"x" * 100, "zeros": bytes(100)}
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM"):
        file = io.BytesIO()
        noise.save(file, kind)
        whole = file.getvalue()
        found |= {f"{kind} cut at {part}": whole[: int(part * len(whole))] for part in (0.1, 0.5, 0.9)}
    plain = png((4, 4), 8, 0, bytes(20))
    at = plain.find(b"IDAT")
    found["bad chunk"] = (
        plain[: at - 4] + struct.pack(">I", 5) + plain[at : at + 9] + b"\0\0\0\x09\xff\1\2\3" + plain[-20:]
    )
    found["bad checksum"] = plain[: at + 6] + b"\x55" + plain[at + 7 :]
    found["no pixels"] = png((0, 4), 8, 0, b"")
    found["bomb"] = png((20000, 20000), 1, 0, b"")
    found["Postscript"] = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(executed) (w) file\n%%EOF"
    return found


@pytest.mark.parametrize("name", damaged_files())
def test_damage_is_one_sentence_that_names_the_file(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "m.png"
    file.write_bytes(damaged_files()[name])
    with pytest.raises(ValueError, match=r"m\.png cannot be read \(.+\): replace the file or delete it") as caught:
        with_picture(file, reader().read)
    assert "\n" not in str(caught.value) and caught.value.__cause__ is not None
    assert capfd.readouterr() == ("", "")


def test_a_picture_below_the_limit_of_size_is_read_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)
    Image.new("L", (10, 10), 9).save(tmp_path / "a.png")
    assert with_picture(tmp_path / "a.png", reader(4).read).unique().tolist() == [9]
    Image.new("L", (20, 20), 9).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png cannot be read \(Image size"):
        with_picture(tmp_path / "a.png", reader(4).read)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path, words in (
        (tmp_path / "pipe.png", "a pipe or a device"),
        (Path("/dev/zero"), "a pipe or a device"),
        (tmp_path, "it is a folder"),
        (tmp_path / "none.png", "No such file"),
    ):
        with pytest.raises(ValueError, match=words):
            with_picture(path, reader().read)


def test_the_header_alone_gives_the_size(tmp_path: Path) -> None:
    whole = io.BytesIO()
    Image.new("RGB", (30, 20)).save(whole, "PNG")
    (tmp_path / "a.png").write_bytes(whole.getvalue()[:60])
    assert picture_size(tmp_path / "a.png") == (30, 20)


def test_formats_are_ones_that_pillow_has() -> None:
    Image.init()
    assert {"PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM"} <= set(FORMATS)
    assert "EPS" not in FORMATS and not set(FORMATS) - set(Image.OPEN) - {"AVIF", "WEBP", "JPEG2000"}
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("PIL").handlers)
