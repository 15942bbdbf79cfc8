"""Converts pictures with an embedded colour profile (ICC) to sRGB, in memory bounded by the profile's size.

LittleCMS allocates the sizes that a profile declares, up to half a GiB: sizes that exceed their tag are rejected first.
Source: ICC.1:2022, sections 7.3 (tags) and 10 (their types).
"""

from __future__ import annotations

import math
import struct
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, Any

from .optional import require

if TYPE_CHECKING:
    from PIL import Image


def to_srgb(image: Image.Image, profile: Any) -> Image.Image:
    """L, RGB or CMYK in the colours of an embedded profile -> L or RGB in sRGB; a damaged profile is ignored."""
    transform = _transform(profile, image.mode) if isinstance(profile, bytes) and profile else None
    if transform is not None:
        cms = require("PIL.ImageCms", "reading an image", "pillow")
        converted: Image.Image | None = cms.applyTransform(image, transform)
        if converted is not None:
            return converted
    return image.convert("RGB") if image.mode == "CMYK" else image


@lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> Any:
    """The conversion to sRGB, or None where there is nothing to convert."""
    try:
        tags = _tags(profile)
        if not all(map(holds_what_it_claims, tags.values())) or _description(tags).startswith("sRGB"):
            return None
        from PIL import ImageCms

        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except Exception:  # no LittleCMS, or a profile that is damaged or of another mode: viewers ignore it too
        return None


def _tags(profile: bytes) -> dict[bytes, bytes]:
    """Signature and content of each tag; raises struct.error or ValueError where the table does not fit the profile."""
    (count,) = struct.unpack_from(">I", profile, 128)
    if 132 + 12 * count > len(profile):
        raise ValueError("the table of tags is longer than the profile")
    entries = (struct.unpack_from(">4sII", profile, 132 + 12 * number) for number in range(count))
    return {signature: profile[start : start + size] for signature, start, size in entries}


def holds_what_it_claims(tag: bytes) -> bool:
    """Whether a tag is long enough for the texts, the curve or the colour table that it declares."""
    kind = tag[:4]
    if kind in (b"mluc", b"curv"):
        (count,) = struct.unpack_from(">I", tag, 8)
        return bool(16 + 12 * count <= len(tag) if kind == b"mluc" else 12 + 2 * count <= len(tag))
    if kind in (b"mft1", b"mft2"):
        inputs, outputs, grid = struct.unpack_from("3B", tag, 8)
        return bool(outputs * grid**inputs * (1 if kind == b"mft1" else 2) <= len(tag))
    if kind in (b"mAB ", b"mBA "):
        inputs, outputs = struct.unpack_from("2B", tag, 8)
        (start,) = struct.unpack_from(">I", tag, 24)
        return bool(start == 0 or outputs * math.prod(tag[start : start + inputs]) <= len(tag))
    return True


def _description(tags: dict[bytes, bytes]) -> str:
    """The profile's name in its first language, or an empty string."""
    tag = tags.get(b"desc", b"")
    if tag[:4] == b"desc":
        return tag[12:].split(b"\0")[0].decode("latin-1")
    if tag[:4] == b"mluc" and len(tag) >= 28:
        length, start = struct.unpack_from(">II", tag, 20)
        return tag[start : start + length].decode("utf-16-be", errors="replace")
    return ""
