"""``Idempotency-Key``: a POST that is sent again gets the first answer again, for a day, and is done once.

Answers may hold a secret that is shown once. They are kept on Redis encrypted under a key that needs both ours and the
caller's own ``Idempotency-Key``, of which only a hash is stored: who reads Redis reads nothing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, cast

from redis.exceptions import RedisError

from cloudsignal.errors import Conflict, Invalid, Unavailable
from cloudsignal.redis import fast_client
from cloudsignal.sealing import SealError, seal, unseal
from cloudsignal.wire.keys import PREFIX

HEADER = "Idempotency-Key"
KEPT_SECONDS = 24 * 3600
RUNNING_SECONDS = 60
"""How long a request may run before its key is free again."""
KEY_MAX = 255
_RUNNING = b"running"


@dataclass(frozen=True, slots=True)
class Stored:
    """The first answer to a key."""

    status: int
    body: Any
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to run a request under its key, and to store its answer."""

    name: str
    context: str
    fingerprint: str

    def finish(self, stored: Stored) -> None:
        """Keep the answer. When Redis fails here the work is done and the caller has its answer: nothing to undo."""
        plain = json.dumps([self.fingerprint, stored.status, stored.body, stored.headers]).encode()
        try:
            fast_client().set(self.name, seal("idempotency", self.context, plain), ex=KEPT_SECONDS)
        except RedisError:
            return

    def release(self) -> None:
        """Free the key: the request failed and may be tried again."""
        try:
            fast_client().delete(self.name)
        except RedisError:
            return


def begin(key: str, *, who: str, fingerprint: str) -> Claim | Stored:
    """Claim ``key`` for a request of ``who``, or return the answer that it had before.

    Raises :class:`Conflict` while the first request runs, :class:`Invalid` when the key is unusable or was used for
    another request, and :class:`Unavailable` when Redis is away: doing it twice would be worse than not at all.
    """
    if not 1 <= len(key) <= KEY_MAX or not key.isprintable():
        raise Invalid("bad_idempotency_key", f"An Idempotency-Key has 1 to {KEY_MAX} visible characters.")
    digest = hashlib.sha256(f"{who}\0{key}".encode("utf-8", "replace")).hexdigest()
    claim = Claim(f"{PREFIX}idempotency:{digest}", f"{who}\0{key}", fingerprint)
    try:
        redis = fast_client()
        if redis.set(claim.name, _RUNNING, nx=True, ex=RUNNING_SECONDS):
            return claim
        found = cast("bytes | None", redis.get(claim.name))
    except RedisError as error:
        raise Unavailable("unavailable", "Idempotency keys cannot be checked right now; try again.") from error
    if found is None or found == _RUNNING:
        raise Conflict("request_running", "The first request with this Idempotency-Key is still running.")
    return _open(claim, found)


def _open(claim: Claim, found: bytes) -> Stored:
    try:
        fingerprint, status, body, headers = json.loads(unseal("idempotency", claim.context, found))
    except (SealError, ValueError) as error:
        raise Conflict("request_lost", "The first answer to this Idempotency-Key cannot be read any more.") from error
    if fingerprint != claim.fingerprint:
        raise Invalid("idempotency_key_reused", "This Idempotency-Key was used for a different request.")
    return Stored(status, body, headers)
