"""MessagePack codec of the wire dataclasses, with type-checked decoding.

``msgspec`` validates every field while it decodes, so a record that reaches the caller has the shape its
dataclass says. Anything else raises :class:`WireError`; callers treat that as "not to be trusted".
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

Record = TypeVar("Record")


class WireError(ValueError):
    """A record on the wire is malformed, has another version, or carries a bad signature or seal."""


def encode(record: object) -> bytes:
    """Encode a wire dataclass as MessagePack (a map of its field names)."""
    return msgspec.msgpack.encode(record)


def decode(data: bytes, kind: type[Record]) -> Record:
    """Decode MessagePack into ``kind``; raises :class:`WireError` on any malformed or mistyped input."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError, UnicodeDecodeError) as error:
        raise WireError(f"not a valid {kind.__name__}: {error}") from error
