"""The cache of estimated prototypes on disk; a file that is damaged or of another key is estimated again."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Hashable

import torch
from torch import Tensor

from fastproto.prototypes.files import Prototypes, as_safetensors, make
from fastproto.support.atomic_files import write_whole
from fastproto.support.cache_folder import cache_folder


class CacheFile:
    """The cache file of one estimate; ``key`` holds everything that its vectors depend on."""

    def __init__(self, num_classes: int, dim: int, key: Hashable) -> None:
        self.key = repr(key)
        self.name = f"{num_classes}x{dim}-{hashlib.sha256(self.key.encode()).hexdigest()[:16]}.safetensors"

    def read(self, t: float, device: torch.device | str | None) -> Prototypes | None:
        """The prototypes that :meth:`write` stored, or None if there is no undamaged file of this key."""
        from safetensors import safe_open

        try:
            file = cache_folder() / self.name
            if not file.is_file():
                return None
            with safe_open(file, framework="pt") as content:
                vectors, facts = content.get_tensor("vectors"), content.metadata() or {}
            passes, seconds = int(facts["passes"]), float(facts["seconds"])
            whole = facts["digest"] == self._digest(vectors, facts["method"], passes, seconds)
        except Exception:  # no right to read, no home, or whatever a damaged file raises in its reader
            return None
        return make(vectors, t, facts["method"], passes=passes, seconds=seconds, device=device) if whole else None

    def write(self, found: Prototypes) -> None:
        """Store the prototypes; a failure is reported in one line on standard error."""
        digest = self._digest(found.vectors, found.method, found.passes, found.seconds)
        data = as_safetensors(found, digest=digest)
        place = self.name
        try:
            file = cache_folder() / self.name
            place = str(file)
            write_whole(file, lambda temporary: temporary.write_bytes(data))
        except (OSError, RuntimeError) as error:  # RuntimeError: no home
            print(
                f"fastproto: could not write the prototype cache {place} ({error}); going on without", file=sys.stderr
            )

    def _digest(self, vectors: Tensor, method: str, passes: int, seconds: float) -> str:
        """SHA-256 of the content and the key, so that a file under another name is not accepted."""
        facts = (self.key, str(vectors.dtype), tuple(vectors.shape), method, passes, seconds)
        digest = hashlib.sha256(repr(facts).encode())
        digest.update(vectors.detach().cpu().contiguous().numpy().data)
        return digest.hexdigest()
