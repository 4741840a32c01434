"""PROXY protocol v2 (haproxy's proxy-protocol.txt): the client's address and TLS facts from a terminator in front.

The header is trusted, so it is only read on a listener whose address is loopback or private. One without TLS facts is
refused: behind the terminator, too, nobody signs in over plaintext.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
HEADER = 16
"""Bytes of the fixed part."""

LENGTH_MAX = 2_048
"""Longest variable part that is read."""

_SSL, _SSL_VERSION, _SSL_CIPHER = 0x20, 0x21, 0x23


class ProxyError(ValueError):
    """The header is missing, malformed or without TLS."""


@dataclass(frozen=True, slots=True)
class Proxied:
    """The addresses that a header names."""

    ip: str
    port: int
    tls_version: str
    tls_cipher: str


def variable_length(header: bytes) -> int:
    """The length of what follows the fixed part; raises :class:`ProxyError`."""
    if len(header) != HEADER or header[:12] != SIGNATURE or header[12] >> 4 != 2:
        raise ProxyError("no PROXY v2 header")
    length = int.from_bytes(header[14:16], "big")
    if length > LENGTH_MAX:
        raise ProxyError("the PROXY header is too long")
    return length


def parse(header: bytes, rest: bytes) -> Proxied | None:
    """Decode a header. ``None`` for LOCAL, the terminator's own health check; raises :class:`ProxyError`."""
    command, family = header[12] & 15, header[13]
    if command == 0:
        return None
    size = {0x11: 4, 0x21: 16}.get(family)
    if command != 1 or size is None or len(rest) < 2 * size + 4:
        raise ProxyError("the PROXY header carries no TCP addresses")
    ip = str(ipaddress.ip_address(rest[:size]))
    port = int.from_bytes(rest[2 * size : 2 * size + 2], "big")
    tls = _fields(rest[2 * size + 4 :]).get(_SSL, b"")
    if len(tls) < 5 or not tls[0] & 1:
        raise ProxyError("the PROXY header carries no TLS facts")
    inner = _fields(tls[5:])
    version = inner.get(_SSL_VERSION, b"").decode("ascii", "replace")
    if version not in {"TLSv1.2", "TLSv1.3"}:
        raise ProxyError("the terminator spoke something older than TLS 1.2")
    return Proxied(ip, port, version, inner.get(_SSL_CIPHER, b"").decode("ascii", "replace")[:64])


def _fields(data: bytes) -> dict[int, bytes]:
    """Type-length-value fields; what is cut short is left out."""
    found: dict[int, bytes] = {}
    position = 0
    while position + 3 <= len(data):
        length = int.from_bytes(data[position + 1 : position + 3], "big")
        value = data[position + 3 : position + 3 + length]
        if len(value) == length:
            found[data[position]] = value
        position += 3 + length
    return found
