"""Record format of the edge's files: 4 bytes length, 4 bytes CRC-32, then a tag and MessagePack."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from cloudsignal.wire.codec import encode

_HEAD = struct.Struct(">II")


def frame(tag: bytes, record: object) -> bytes:
    """Encode one record."""
    payload = tag + encode(record)
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def frames(data: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Tag, MessagePack and end of each record, up to the first that is cut short or damaged."""
    position = 0
    while position + 8 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        crc = int.from_bytes(data[position + 4 : position + 8], "big")
        payload = data[position + 8 : position + 8 + length]
        if len(payload) != length or not length or zlib.crc32(payload) != crc:
            return
        position += 8 + length
        yield payload[:1], payload[1:], position
