"""Colour profiles of pictures are applied."""

from __future__ import annotations

import resource
import struct

import pytest
from PIL import Image, ImageCms

from fastproto.data.colour_profiles import holds_what_it_claims

from .helpers import reader, through


def test_colour_profiles_are_applied() -> None:
    linear = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert reader(4, 3).read(through(Image.new("RGB", (4, 4), (10, 100, 200)), "PNG", icc_profile=linear))[
        :, 0, 0
    ].tolist() == [10, 100, 200]
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for profile in (b"damaged", lab, b""):  # none of these fits: ignored
        image = Image.new("RGB", (4, 4), (10, 100, 200))
        image.info["icc_profile"] = profile
        assert reader(4, 3).read(image)[:, 0, 0].tolist() == [10, 100, 200]


def test_a_profile_with_swapped_primaries_swaps_the_colours() -> None:
    """sRGB with the red and green colorants exchanged: a viewer shows red pixels green."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack_from(">I", profile, 128)[0]
    tags = {bytes(profile[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
    for first, second in ((b"rXYZ", b"gXYZ"),):
        profile[tags[first] : tags[first] + 4], profile[tags[second] : tags[second] + 4] = second, first
    described = struct.unpack_from(">I", profile, tags[b"desc"] + 4)[0]
    at = profile.find("sRGB".encode("utf-16-be"), described)
    profile[at : at + 8] = "Swap".encode("utf-16-be")
    image = through(Image.new("RGB", (4, 4), (255, 0, 0)), "PNG", icc_profile=bytes(profile))
    red, green, blue = reader(4, 3).read(image)[:, 0, 0].tolist()
    assert green >= 250 and red <= 5 and blue <= 5
    assert int(reader(4, 1).read(image)[0, 0, 0]) in range(145, 155)  # the grey of green


@pytest.mark.parametrize("number", [1, 2**25, 2**32 - 1])
def test_a_profile_that_claims_more_than_it_holds_is_ignored(number: int) -> None:
    """LittleCMS would take twelve bytes for each of the texts that are announced."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    at = profile.find(b"mluc", 132)
    struct.pack_into(">I", profile, at + 8, number)
    image = Image.new("RGB", (4, 4), (10, 100, 200))
    image.info["icc_profile"] = bytes(profile)
    before = resident()
    assert reader(4, 3).read(image)[:, 0, 0].tolist() == [10, 100, 200]
    assert resident() - before < 64 * 2**20


def test_a_table_of_colours_must_fit_its_tag() -> None:
    tag = b"mft2" + bytes(4) + bytes((3, 3, 33, 0)) + bytes(36)
    assert not holds_what_it_claims(tag) and holds_what_it_claims(tag + bytes(2 * 3 * 33**3))
    table = (
        b"mAB " + bytes(4) + bytes((3, 3, 0, 0)) + bytes(12) + struct.pack(">II", 32, 0) + bytes((9, 9, 9)) + bytes(13)
    )
    assert not holds_what_it_claims(table) and holds_what_it_claims(table + bytes(3 * 9**3))
    assert not holds_what_it_claims(b"curv" + bytes(4) + struct.pack(">I", 10) + bytes(19))


def resident() -> int:
    """The most memory that this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
