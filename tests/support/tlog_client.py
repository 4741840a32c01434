"""A client of a tiled log, written from RFC 6962 and C2SP tlog-tiles, tlog-checkpoint and signed-note alone.

It imports nothing of the project: what it accepts does not depend on what the project believes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

Fetch = Callable[[str], bytes]
"""GET of a path below the log's prefix."""


class Client:
    """Fetches a log whole and checks it."""

    def __init__(self, fetch: Fetch, vkey: str) -> None:
        self.fetch = fetch
        self.name, self.key_id, key = vkey.split("+", 2)
        self.public = base64.b64decode(key)[1:]

    def checkpoint(self) -> tuple[int, bytes]:
        """Size and root of the signed checkpoint."""
        text, signatures = self.fetch("checkpoint").decode().split("\n\n", 1)
        origin, size, root, *_ = text.split("\n")
        assert origin == self.name
        for line in signatures.splitlines():
            dash, name, encoded = line.split(" ")
            raw = base64.b64decode(encoded)
            if (dash, name, raw[:4].hex()) == ("—", self.name, self.key_id):
                Ed25519PublicKey.from_public_bytes(self.public).verify(raw[4:], (text + "\n").encode())
                return int(size), base64.b64decode(root)
        raise AssertionError("no signature of the key")

    def leaves(self, size: int) -> list[bytes]:
        """The hashes of all leaves, from entry bundles, compared with the tiles of level 0."""
        found: list[bytes] = []
        for index in range((size + 255) // 256):
            width = min(256, size - index * 256)
            bundle, tile = self.fetch(path("entries", index, width)), self.fetch(path("0", index, width))
            hashes = []
            while bundle:
                length = int.from_bytes(bundle[:2], "big")
                hashes.append(hashlib.sha256(b"\x00" + bundle[2 : 2 + length]).digest())
                bundle = bundle[2 + length :]
            assert b"".join(hashes) == tile
            found += hashes
        assert len(found) == size
        return found

    def check(self) -> int:
        """Check the whole log: every tile of every level, and the root. Returns the size."""
        size, root = self.checkpoint()
        level, hashes = 0, self.leaves(size)
        assert merkle(hashes) == root
        while len(hashes) >= 256:
            hashes = [merkle(hashes[at : at + 256]) for at in range(0, len(hashes) // 256 * 256, 256)]
            level += 1
            for at in range(0, len(hashes), 256):
                part = hashes[at : at + 256]
                assert self.fetch(path(str(level), at // 256, len(part))) == b"".join(part)
        return size


def path(level: str, index: int, width: int) -> str:
    """The path of a tile."""
    digits = f"{index:03d}"
    digits = digits.zfill((len(digits) + 2) // 3 * 3)
    parts = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    return (
        f"tile/{level}/"
        + "/".join([*(f"x{part}" for part in parts[:-1]), parts[-1]])
        + (f".p/{width}" if width < 256 else "")
    )


def merkle(hashes: list[bytes]) -> bytes:
    """MTH over leaf hashes."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    half = 1
    while half * 2 < len(hashes):
        half *= 2
    return hashlib.sha256(b"\x01" + merkle(hashes[:half]) + merkle(hashes[half:])).digest()
