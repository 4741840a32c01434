"""Keep facts on Redis under a one-time code, for a short time.

Under the hash of the code and sealed with it, so that who can read or write Redis can neither learn nor make one.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, cast

from redis.exceptions import RedisError

from cloudsignal.errors import Unavailable
from cloudsignal.redis import fast_client
from cloudsignal.secrets.sealing import SealError, seal, unseal
from cloudsignal.wire.keys import PREFIX


def keep_facts(purpose: str, code: str, facts: list[Any], *, seconds: int) -> None:
    """Keep ``facts`` for whoever shows ``code``, at least 128 random bits; raises :class:`Unavailable`."""
    try:
        fast_client().set(_name(purpose, code), seal(purpose, code, json.dumps(facts).encode()), ex=seconds)
    except RedisError as error:
        raise _unavailable() from error


def take_facts(purpose: str, code: str) -> list[Any] | None:
    """Return and delete the facts of a code in one step. Raises :class:`Unavailable`."""
    try:
        found = cast("bytes | None", fast_client().getdel(_name(purpose, code)))
        return None if found is None else list(json.loads(unseal(purpose, code, found)))
    except RedisError as error:
        raise _unavailable() from error
    except SealError:
        return None


def _name(purpose: str, code: str) -> str:
    return f"{PREFIX}login:{purpose}:{hashlib.sha256(code.encode('utf-8', 'replace')).hexdigest()}"


def _unavailable() -> Unavailable:
    return Unavailable("unavailable", "Signing in is not possible right now; try again.")
