"""Have the platform's log of checkpoints witnessed: submit its newest checkpoint, keep the cosignatures.

No transaction is open while a witness is asked. What a witness says that no honest log could hear is an alarm.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from time import monotonic

import httpx
from django.core.cache import cache

from audit.kinds import LOG_CONFLICT, LOG_WITNESS_FAILED
from audit.log.tree import consistency_proof
from audit.log.verifier import Key, Note, VerifyError, parse_note, parse_signatures, signers
from audit.log.witness import REQUEST_BYTES_MAX, AddCheckpoint, parse_witnesses
from audit.models import Event
from audit.services.record import record
from audit.transparency import tables
from audit.transparency.tables import LogReader, StoredCheckpoint
from cloudsignal.config import Environment
from cloudsignal.ids import CHECKPOINT_LOG, PLATFORM_ORG
from cloudsignal.tenancy.scopes import platform_scope
from orgs.actors import PLATFORM

logger = logging.getLogger(__name__)

SECONDS = 3.0
"""A witness that takes longer for an answer is given up until the next round."""
PAUSE = 60
"""Seconds for which a witness that failed is not asked: one that hangs must not keep a worker busy."""
BUSY = "witness-busy"
"""Only one worker asks at a time."""
ROUND_SECONDS = 45
"""No witness is asked later in a round: the next worker begins after 60 s, and would be ahead of this one."""
AGAIN = timedelta(hours=1)
"""Time between two events about the same failure of a witness."""


class WitnessConflictError(Exception):
    """A witness saw another history of this log: the database was forked or rolled back."""


class WitnessFailedError(Exception):
    """A witness did not answer, or not with what it should."""


def listed() -> list[tuple[str, Key]]:
    """URL and key of each witness in the file ``CLOUDSIGNAL_WITNESSES``; none without one."""
    name = Environment().text("CLOUDSIGNAL_WITNESSES", "")
    path = Environment().path("CLOUDSIGNAL_WITNESSES") if name else None
    return parse_witnesses(path.read_text("utf-8")) if path is not None and path.exists() else []


def submit_to_all() -> int:
    """Submit the newest checkpoint to each witness that has not cosigned it; returns how many did."""
    with platform_scope():
        last = tables.last_checkpoint(CHECKPOINT_LOG)
    if last is None or not cache.add(BUSY, 1, timeout=60):
        return 0
    try:
        end = monotonic() + ROUND_SECONDS
        asked = [(url, key) for url, key in listed() if cache.get(_pause(key)) is None]
        return sum(_submit(url, key, last) for url, key in asked if monotonic() < end)
    except (OSError, ValueError) as error:
        _say(LOG_WITNESS_FAILED, "list", last, f"the list of witnesses cannot be read: {error}")
        return 0
    finally:
        cache.delete(BUSY)


def _pause(key: Key) -> str:
    return f"witness-pause-{key.id.hex()}"


def _submit(url: str, key: Key, last: StoredCheckpoint) -> bool:
    with platform_scope():
        seen = tables.cosigned_size(key.vkey)
    if seen >= last.size:
        return False
    try:
        line = _ask(url, key, last, seen)
    except WitnessConflictError as error:
        _say(LOG_CONFLICT, key.name, last, str(error))
        return False
    except WitnessFailedError as error:
        cache.set(_pause(key), 1, timeout=PAUSE)
        _say(LOG_WITNESS_FAILED, key.name, last, str(error))
        return False
    with platform_scope():
        tables.add_cosignature(CHECKPOINT_LOG, last.size, key.vkey, line)
    return True


def _ask(url: str, key: Key, last: StoredCheckpoint, seen: int, *, again: bool = True) -> bytes:
    """The cosignature line of a witness that saw ``seen`` leaves, as far as we know."""
    with platform_scope():
        proof = consistency_proof(LogReader(CHECKPOINT_LOG).tile, seen, last.size)
    status, body = _post(f"{url}/add-checkpoint", AddCheckpoint(seen, tuple(proof), last.note).encode())
    if status == httpx.codes.OK:
        return _line(key, last, body)
    if status == httpx.codes.CONFLICT:
        size = body.strip()
        if not size.isdigit() or len(size) > 19:
            raise WitnessFailedError("it answers 409 without a size")
        if int(size) > last.size:
            raise WitnessConflictError(f"it has seen {int(size)} checkpoints, and here are {last.size}")
        if again:  # it knows more of this log than we noted: an answer was lost on its way
            return _ask(url, key, last, int(size), again=False)
        if int(size) == seen == last.size:
            raise WitnessConflictError(f"it has seen other {seen} checkpoints than those here")
        raise WitnessFailedError("it answers 409 to the size that it has named itself")
    if status == httpx.codes.UNPROCESSABLE_ENTITY:
        raise WitnessConflictError(f"what is here does not continue the {seen} checkpoints that it has seen")
    raise WitnessFailedError(f"it answers {status}")


def _post(url: str, body: bytes) -> tuple[int, bytes]:
    """Status and body, of a bounded length within a bounded time."""
    try:
        return asyncio.run(_exchange(url, body))
    except (TimeoutError, httpx.TimeoutException):
        raise WitnessFailedError(f"it has not answered within {SECONDS:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise WitnessFailedError(f"it cannot be reached: {type(error).__name__}") from None


async def _exchange(url: str, body: bytes) -> tuple[int, bytes]:
    """:func:`_post` with one deadline over all: httpx itself bounds each read, which a byte now and then extends."""
    async with (
        asyncio.timeout(SECONDS),
        httpx.AsyncClient(timeout=SECONDS, trust_env=False, headers={"Accept-Encoding": "identity"}) as client,
        client.stream("POST", url, content=body) as got,
    ):
        found = b""
        async for part in got.aiter_raw(4_096):
            found += part
            if len(found) > REQUEST_BYTES_MAX:
                raise WitnessFailedError("its answer is too long")
        return got.status_code, found


def _line(key: Key, last: StoredCheckpoint, body: bytes) -> bytes:
    """The line of ``key`` in an answer, verified; lines of other keys are ignored."""
    try:
        note = Note(parse_note(last.note).text, parse_signatures(body))
        if key.vkey not in signers(note, [key]):
            raise WitnessFailedError("its answer has no cosignature of its key")
    except (VerifyError, UnicodeDecodeError) as error:
        raise WitnessFailedError(f"its answer does not verify: {error}") from None
    start = f"— {key.name} ".encode()
    return next(each for each in body.splitlines(keepends=True) if each.startswith(start))


def _say(kind: str, name: str, last: StoredCheckpoint, reason: str) -> None:
    """An event in the operator's log, once an hour for the same witness and kind."""
    logger.error("witness %s: %s", name, reason)
    target = f"witness:{name}"[:320]
    with platform_scope():
        said = Event.objects.filter(org_id=PLATFORM_ORG, ts__gte=datetime.now(UTC) - AGAIN, kind=kind, target=target)
        if not said.exists():
            record(PLATFORM, kind, target=target, after={"size": last.size, "problem": reason[:300]})
