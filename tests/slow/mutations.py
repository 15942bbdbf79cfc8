"""Random damage to the bytes of a file, and behind the checksums of a zip archive or a PNG."""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib

EXTREME = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1]
WORDS = [
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\0",
    b"\r",
    b"\xe4",
    b"nan",
    b"1e999",
    b"-",
    b"9" * 30,
    b"\t",
    b" ",
    b"{",
    b"'",
]


def mutate(content: bytes, rng: random.Random) -> bytes:
    """One to four damages: bits, bytes, extreme integers, cuts, insertions, repetitions, removals."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        # Headers are short and tell most: every second damage is near the start.
        at = rng.randrange(min(len(data), 200) if rng.random() < 0.5 else len(data)) if data else 0
        length = rng.choice([1, 2, 4, 8, 30, 300])
        match rng.randrange(9):
            case 0:
                for _ in range(rng.randrange(1, 9)):
                    if data:
                        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            case 1 if data:
                data[at] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
            case 2:
                width = rng.choice([1, 2, 4, 8])
                number = rng.choice(EXTREME) % 256**width
                data[at : at + width] = number.to_bytes(width, rng.choice(["little", "big"]))
            case 3:
                del data[at:]
            case 4:
                data[at:at] = rng.randbytes(length)
            case 5:
                data[at:at] = data[at : at + length]
            case 6:
                del data[at : at + length]
            case 7:
                data[at:at] = rng.choice(WORDS)
            case _:
                data[at : at + length] = bytes(length)
    return bytes(data)


def mutate_within(content: bytes, rng: random.Random) -> bytes:
    """Damage behind the checksums: a member of a zip archive or a chunk of a PNG, put together again as valid."""
    if content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(content)) as old:
            if sum(info.file_size for info in old.infolist()) > 2**20:
                return mutate(content, rng)  # a bomb
            members = [(info.filename, old.read(info)) for info in old.infolist()]
        worse = rng.randrange(len(members))
        file, method = io.BytesIO(), rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
        with zipfile.ZipFile(file, "w", method) as new:
            for number, (name, body) in enumerate(members):
                new.writestr(name, mutate(body, rng) if number == worse else body)
        return file.getvalue()
    if content.startswith(b"\x89PNG"):
        chunks, at = [], 8
        while at < len(content):
            (size,) = struct.unpack_from(">I", content, at)
            chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
            at += 12 + size
        worse = rng.randrange(len(chunks))
        name, body = chunks[worse]
        inside = name == b"IDAT" and rng.random() < 0.5
        chunks[worse] = (name, zlib.compress(mutate(zlib.decompress(body), rng)) if inside else mutate(body, rng))
        return content[:8] + b"".join(
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
            for name, body in chunks
        )
    return mutate(content, rng)
