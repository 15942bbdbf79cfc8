"""Decodes pictures of any depth, mode and colour space to 8 bits, as a viewer would show them."""

from __future__ import annotations

import logging
import os
import stat
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .optional import require

if TYPE_CHECKING:
    from PIL import Image

Result = TypeVar("Result")

# Left out: formats for which Pillow starts another program (EPS), stubs, and formats that no viewer shows.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP", "AVIF", "DIB", "ICO", "JPEG2000", "PCX", "SGI", "TGA")
UNSUPPORTED = f"damaged, or none of {', '.join(FORMATS)}"
BITS, WHITE_IS, FORMAT = 258, 262, 339  # tags of TIFF
ORIENTATION = 0x0112
# A nominal range is assumed where the largest value reaches this fraction of it.
FILLED = 0.8


def with_picture(path: Path, use: Callable[[Image.Image], Result], *, decode: bool = True) -> Result:
    """Open a picture file and apply ``use`` to its first frame; with ``decode`` its pixels are decoded first.

    Raises:
        ValueError: the file is missing, not a regular file, of an unknown format, damaged, or above Pillow's limit
            (179 million pixels); the message names the file and the cause is the original error.
        ImportError: Pillow is not installed.
    """
    pil = require("PIL.Image", "reading an image", "pillow")
    _silence_log()
    try:
        _check_regular(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = _opened(pil, path, decode)
            with image:
                return use(image)
    except (ValueError, OSError, MemoryError) as error:
        cause = error.__cause__ if isinstance(error, _DecoderError) else error
        raise ValueError(f"the image {path} cannot be read ({reason(cause)}): replace the file or delete it") from cause


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height as the file's header states them. Raises ValueError as :func:`with_picture`."""

    def size(image: Image.Image) -> tuple[int, int]:
        return image.size

    return with_picture(path, size, decode=False)


def ends_well(path: Path) -> bool:
    """Whether the file ends as a complete PNG, JPEG, GIF or WebP file does; False for other formats."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(12)
        file.seek(max(0, size - 12))
        end = file.read()
    if start.startswith(b"RIFF"):
        return size >= int.from_bytes(start[4:8], "little") + 8
    return end.endswith((b"IEND\xaeB`\x82", b"\xff\xd9", b";"))


def reason(error: BaseException | None) -> str:
    """One line that says why a picture cannot be read."""
    if type(error).__name__ == "UnidentifiedImageError":
        return UNSUPPORTED
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    return text if text and not isinstance(error, KeyError) else type(error).__name__


class _DecoderError(ValueError):
    """Wraps any error of a Pillow decoder, which is its cause."""


def _opened(pil: Any, path: Path, decode: bool) -> Image.Image:
    try:
        image: Image.Image = pil.open(path, formats=_formats())
    except Exception as error:  # decoders raise SyntaxError, struct.error, zlib.error, IndexError, ... on damaged files
        raise _DecoderError from error
    try:
        if min(image.size) < 1:
            raise ValueError(f"it has {image.size[0]} x {image.size[1]} pixels")
        if decode:
            _load(image)
    except Exception as error:
        image.close()
        raise _DecoderError from error
    return image


def _load(image: Image.Image) -> None:
    """Decode the pixels; the process's standard error is silenced for libtiff, which writes there itself."""
    tiles = getattr(image, "tile", None)
    if not tiles or tiles[0][0] != "libtiff":
        image.load()
        return
    with suppress(OSError, ValueError):
        if sys.stderr is not None:
            sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # it is closed
        image.load()
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        image.load()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _check_regular(path: Path) -> None:
    """Raise ValueError unless the path is a regular file: reading a pipe or a device could block."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise ValueError("it is a folder")
    if not stat.S_ISREG(mode):
        raise ValueError("it is a pipe or a device")


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    pil = require("PIL.Image", "reading an image", "pillow")
    pil.init()
    return tuple(name for name in FORMATS if name in pil.OPEN)


@lru_cache(maxsize=1)
def _silence_log() -> None:
    """Keep ``logging`` from printing what Pillow logs about damage where the user has set no handler."""
    logging.getLogger("PIL").addHandler(logging.NullHandler())


# --- modes -----------------------------------------------------------------------------------------------------------


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or the EXIF data are damaged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # parsers of EXIF and XMP raise SyntaxError, struct.error, TypeError, ...
        return 1


def upright(image: Image.Image, turned: int) -> Image.Image:
    """The picture turned from EXIF orientation ``turned`` to 1."""
    how = require("PIL.Image", "reading an image", "pillow").Transpose
    turns = {
        2: how.FLIP_LEFT_RIGHT,
        3: how.ROTATE_180,
        4: how.FLIP_TOP_BOTTOM,
        5: how.TRANSPOSE,
        6: how.ROTATE_270,
        7: how.TRANSVERSE,
        8: how.ROTATE_90,
    }
    return image.transpose(turns[turned]) if turned in turns else image


def eight_bits(image: Image.Image) -> Image.Image:
    """A picture of any mode as L, RGB or (with a colour profile) CMYK; transparent parts become white.

    16-bit greys are divided by 65535, or by the maximum of the depth that a TIFF declares. 32-bit integers and floats
    whose maximum is at least four fifths of 1 (floats), 255 or 65535 are read on that scale; others are stretched, the
    least value black and the largest white. NaN and -inf are black, inf is white.

    Raises:
        ValueError: a mode that cannot be converted.
    """
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _deep_grey(image)
    premultiplied = {"La": "LA", "RGBa": "RGBA"}
    if image.mode in premultiplied:
        image = image.convert(premultiplied[image.mode])
    if "A" in image.getbands() or "transparency" in image.info:
        image = _on_white(image)
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("L", "RGB") or (image.mode == "CMYK" and image.info.get("icc_profile")):
        return image
    return image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    pil = require("PIL.Image", "reading an image", "pillow")
    try:
        image = image.convert("RGBA")
    except (ValueError, TypeError, OverflowError, KeyError):  # a transparent colour outside the range of the mode
        image.info.pop("transparency", None)
        return image
    flat: Image.Image = pil.alpha_composite(pil.new("RGBA", image.size, "white"), image)
    return flat.convert("RGB")


def _deep_grey(image: Image.Image) -> Image.Image:
    pil = require("PIL.Image", "reading an image", "pillow")
    tags = getattr(image, "tag_v2", {})
    values = np.asarray(image.convert("I") if image.mode.startswith("I;16") else image)
    if image.mode.startswith("I;16") or image.format in ("PNG", "PPM"):
        top = 4095 if tuple(tags.get(BITS, ())) == (12,) else 65535
        grey = _scaled(values, 0, top)
    else:
        if values.dtype == np.int32 and tuple(tags.get(BITS, ())) == (32,) and tags.get(FORMAT, (1,))[0] == 1:
            values = values.view(np.uint32)  # Pillow returns unsigned numbers as signed
        grey = _scaled(values, *_range(values))
    if tags.get(WHITE_IS) == 0:
        grey = 255 - grey
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    result: Image.Image = pil.fromarray(grey)
    return result


def _range(values: np.ndarray[Any, Any]) -> tuple[float, float]:
    """The values of black and of white."""
    finite = values if values.dtype.kind != "f" else values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    scales = (1.0, 255.0, 65535.0) if values.dtype.kind == "f" else (255.0, 65535.0)
    for top in scales:
        if low >= 0 and high <= top and (high >= FILLED * top or low == high):
            return 0.0, top
    if low == high:
        return (low, 0.0) if low < 0 else (0.0, high)
    return low, high


def _scaled(values: np.ndarray[Any, Any], low: float, high: float) -> np.ndarray[Any, Any]:
    """Map ``low`` to 0 and ``high`` to 255, rounded and clipped, in blocks of rows that bound the memory."""
    grey = np.empty(values.shape, np.uint8)
    rows = max(1, 2**20 // max(values.shape[1], 1))
    for start in range(0, len(values), rows):
        # float64: the difference of two float32 numbers may overflow float32
        part = (values[start : start + rows].astype(np.float64) - low) * (255 / (high - low))
        grey[start : start + rows] = np.nan_to_num(part, nan=0.0, posinf=255.0, neginf=0.0).round().clip(0, 255)
    return grey
