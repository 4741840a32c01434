"""Grow a Merkle tree in tiles, and prove inclusion and consistency from them (RFC 6962 s2.1, C2SP tlog-tiles)."""

from __future__ import annotations

from collections.abc import Iterator

from audit.log.verifier import TILE, Tiles, fold, perfect_root, read_tile, split


def completed(tiles: Tiles, old: int, new: int, level: int) -> Iterator[tuple[int, bytes]]:
    """The hashes at ``level`` (1 and above) that growing from ``old`` to ``new`` leaves adds: position and hash.

    Each is the root of a tile of the level below that is full now. Nothing that was there before changes.
    """
    for position in range(old >> 8 * level, new >> 8 * level):
        yield position, perfect_root(split(tiles(level - 1, position, TILE)))


def inclusion_proof(tiles: Tiles, index: int, size: int) -> list[bytes]:
    """The path from the leaf at ``index`` to the root of the tree of ``size`` leaves: PATH of RFC 6962 s2.1.1."""
    if not 0 <= index < size:
        raise ValueError(f"index {index} is not in a tree of {size} leaves")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(root_of_range(tiles, size, middle, end))
            end = middle
        else:
            path.append(root_of_range(tiles, size, start, middle))
            start = middle
    return path[::-1]


def consistency_proof(tiles: Tiles, old: int, new: int) -> list[bytes]:
    """The proof that the tree of ``new`` leaves begins with that of ``old``: PROOF of RFC 6962 s2.1.2."""
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {new} leaves cannot continue one of {old}")
    if old in {0, new}:
        return []
    path: list[bytes] = []
    start, end = 0, new
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            path.append(root_of_range(tiles, new, middle, end))
            end = middle
        else:
            path.append(root_of_range(tiles, new, start, middle))
            start = middle
    if start:
        path.append(root_of_range(tiles, new, start, end))
    return path[::-1]


def root_of_range(tiles: Tiles, size: int, start: int, end: int) -> bytes:
    """MTH(D[start:end]) for a subtree of the tree of ``size`` leaves; ``start`` is a multiple of its largest part."""
    peaks = []
    while start < end:
        height = (end - start).bit_length() - 1
        peaks.append(_perfect(tiles, size, start, height))
        start += 1 << height
    return fold(peaks)


def _perfect(tiles: Tiles, size: int, start: int, height: int) -> bytes:
    """The root over the ``2**height`` leaves from ``start`` on: from one tile."""
    level, rest = divmod(height, 8)
    index, offset = divmod(start >> 8 * level, TILE)
    return perfect_root(read_tile(tiles, level, index, size)[offset : offset + (1 << rest)])


def _split(count: int) -> int:
    """The largest power of two below ``count``."""
    return 1 << (count - 1).bit_length() - 1
