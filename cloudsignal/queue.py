"""The sealed task queue on Redis: workers accept only messages that web, workers and beat have put there.

kombu's transport trusts Redis. A message made up by whoever can write to it would run any task with any arguments, and
one that kombu or Celery cannot read ends the worker, or stays and ends the next. So each envelope carries an HMAC over
all of it (body, headers with the task's name and options, properties, queue) under a key that Redis and edges do not
have, and when it was sent. It is checked on the raw bytes, before kombu or Celery look at them: what does not verify is
dropped and logged. The same holds for messages that a dead worker had in hand and that are given out again.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import time
from functools import cache
from queue import Empty
from typing import Any

from django.utils.crypto import salted_hmac
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps, loads
from redis import Redis
from redis.exceptions import ResponseError

from cloudsignal.redis import client

logger = logging.getLogger(__name__)

QUEUE = "cloudsignal"
PREFIX = "cs1:celery:"
"""The prefix of every key of the queue."""

MESSAGE_MAX = 256 * 1024
"""Bytes of an envelope. Tasks are told names and ids; the largest, a batch of 1,000 usernames, has some 90 KiB."""
AGE_MAX = 24 * 3600
"""Seconds a task may wait in the queue. What a push would have written comes with the next comparison in any case."""
AHEAD_MAX = 300
"""Seconds the clocks of web, workers and beat may differ."""
SEAL = "cloudsignal-seal"


class UnsealedError(ValueError):
    """A message without a valid seal of our processes for this queue, or one that is too old."""


def seal_envelope(queue: str, envelope: dict[str, Any], *, now: float | None = None) -> dict[str, Any]:
    """Seal an envelope: add the time and an HMAC over the envelope, the queue and the time."""
    at = int(time.time() if now is None else now)
    return {**envelope, SEAL: [at, _mac(queue, at, envelope)]}


def open_envelope(queue: str, raw: bytes) -> dict[str, Any]:
    """Verify and return an envelope sealed for this queue; raises :class:`UnsealedError`."""
    if len(raw) > MESSAGE_MAX:
        raise UnsealedError(f"{len(raw)} bytes; a message has at most {MESSAGE_MAX}")
    try:
        return _verified(queue, loads(raw.decode()))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        if isinstance(error, UnsealedError):
            raise
        raise UnsealedError("not an envelope") from error


def _verified(queue: str, envelope: object) -> dict[str, Any]:
    if not isinstance(envelope, dict):
        raise UnsealedError("not an envelope")
    at, mac = envelope.get(SEAL) or (0, "")
    if type(at) is not int or not isinstance(mac, str):
        raise UnsealedError("not an envelope")
    if not hmac.compare_digest(mac.encode(), _mac(queue, at, envelope).encode()):
        raise UnsealedError("the seal is not ours")
    age = time.time() - at
    if not -AHEAD_MAX <= age <= AGE_MAX:
        raise UnsealedError(f"sealed {age:.0f} seconds ago; at most {AGE_MAX} are trusted")
    return envelope


def _mac(queue: str, at: int, envelope: dict[str, Any]) -> str:
    """The HMAC of an envelope, without the seal and the two marks that kombu sets on redelivery."""
    plain = {name: value for name, value in envelope.items() if name != SEAL}
    properties = dict(plain["properties"])
    delivery = dict(properties.get("delivery_info", {}))
    delivery.pop("redelivered", None)
    properties["delivery_info"] = delivery
    headers = {name: value for name, value in plain["headers"].items() if name != "redelivered"}
    plain |= {"properties": properties, "headers": headers}
    # Through JSON and back, so that what is sealed is what a reader of the envelope gets to see.
    text = json.dumps([queue, at, json.loads(dumps(plain))], sort_keys=True, separators=(",", ":"))
    return hmac.new(_key(), text.encode(), hashlib.sha256).hexdigest()


@cache
def _key() -> bytes:
    """The sealing key, derived from Django's secret key, which edges do not have, unlike the pepper."""
    return salted_hmac("cloudsignal.queue v1", "tasks", algorithm="sha256").digest()


class QoS(kombu_redis.QoS):
    """kombu's unacknowledged messages, where one that cannot be redelivered does not block the others."""

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:
        """Redeliver a message; an invalid value under its tag is dropped."""
        try:
            super().restore_by_tag(tag, client=client, leftmost=leftmost)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            logger.warning("queue: what a worker had in hand cannot be read and is dropped: %s", type(error).__name__)
            self.ack(tag)


class Channel(kombu_redis.Channel):
    """kombu's channel that seals messages on the way in and verifies them on the way out."""

    QoS = QoS

    def get_table(self, exchange: str) -> list[tuple[str, str, str]]:
        """The bindings of an exchange: always the one queue, not what Redis says, which could redirect messages."""
        return [(QUEUE, "", QUEUE)] if exchange == QUEUE else []

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        super()._put(queue, seal_envelope(queue, message), **kwargs)

    def _brpop_read(self, **options: Any) -> bool:
        """Read a message from the blocking connection, as kombu does, and drop one without a valid seal."""
        try:
            found = self._waited_for(**options)
            if not found:
                raise Empty
            queue, raw = bytes_to_str(found[0]).rsplit(self.sep, 1)[0], found[1]
            self._queue_cycle.rotate(queue)  # type: ignore[attr-defined]
            try:
                envelope = open_envelope(queue, raw)
            except UnsealedError as error:
                logger.warning("queue: a message was dropped: %s", error)
                return False
            self.connection._deliver(envelope, queue)
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()  # type: ignore[attr-defined]

    def _waited_for(self, **options: Any) -> Any:
        try:
            return self.client.parse_response(self.client.connection, "BRPOP", **options)
        except ResponseError:
            repair(client())
            return None
        except self.connection_errors:  # type: ignore[attr-defined]
            self.client.connection.disconnect()
            raise


class Transport(kombu_redis.Transport):
    """kombu's transport with sealed channels."""

    Channel = Channel


# By its alias and not by ``broker_transport``, which a URL with a "+" in its scheme would get around.
TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), "cloudsignal.queue:Transport"))


def repair(redis: Redis) -> int:
    """Delete keys that would stop the queue: those of a type that kombu does not make, and a lock without expiry.

    Returns how many were deleted.
    """
    kinds = {
        QUEUE: b"list",
        **{f"{QUEUE}{Channel.sep}{step}": b"list" for step in Channel.priority_steps if step},
        Channel.unacked_key: b"hash",
        Channel.unacked_index_key: b"zset",
        Channel.unacked_mutex_key: b"string",
        Channel.keyprefix_queue % QUEUE: b"set",
    }
    spoilt = [PREFIX + name for name, kind in kinds.items() if redis.type(PREFIX + name) not in {kind, b"none"}]
    mutex = PREFIX + Channel.unacked_mutex_key
    if not 0 <= redis.ttl(mutex) <= Channel.unacked_mutex_expire:
        spoilt.append(mutex)
    deleted = redis.delete(*spoilt) if spoilt else 0
    if deleted:
        logger.warning("queue: %d unusable keys were deleted", deleted)
    return deleted
