"""The mountpoint: maps an organization's topics, filters and client IDs to the broker's, and back.

client ``a/b`` <-> broker ``org_x/t/a/b``; client ``$x/y`` <-> ``org_x/s/x/y``. Two roots keep MQTT's rule that a
filter starting with a wildcard does not see ``$`` topics (MQTT 5 s4.7.2) exact without any state: ``#`` becomes
``org_x/t/#``, which no ``$`` topic lies below. Everything is bytes of checked UTF-8.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from acl.policy.engine.topics import MAX_LEVELS

MAX_TOPIC_BYTES = 65_535
"""MQTT 5 s1.5.4: a string has a two-byte length."""

IN_FLIGHT = 20
"""Messages of QoS 1 and 2 that the broker may have on the way to one client, whatever Receive Maximum it announces."""

MAX_PACKET_BYTES = 16 * 1024 * 1024
"""No organization may be granted larger packets than this, in bytes."""

MOUNT_OVERHEAD = 64
"""More than a packet can grow by mounting one topic: the prefix and one more byte of each length."""

MOUNT_LEVELS = 2
"""Levels that mounting adds to a topic: the organization and the root."""

TOPIC_LEVELS = MAX_LEVELS
"""Levels of a client's topic or filter, unless ``EDGE_TOPIC_LEVELS`` says fewer: as many as a policy can speak of."""

_SHARE = b"$share/"


class MountError(ValueError):
    """A topic, filter or client ID cannot be mapped to the mountpoint; the text says why."""


@dataclass(frozen=True, slots=True)
class Mount:
    """The mountpoint of one organization."""

    org: str
    plain: bytes
    """Prefix of ordinary topics: ``org_x/t/``."""
    dollar: bytes
    """Prefix of topics that start with ``$`` at the client: ``org_x/s/`` (the ``$`` itself is taken off)."""
    levels: int = TOPIC_LEVELS
    """Levels of a client's topic or filter, at most."""

    @classmethod
    def of(cls, org: str, levels: int = TOPIC_LEVELS) -> Mount:
        """Make the mountpoint of an organization."""
        return cls(org, f"{org}/t/".encode(), f"{org}/s/".encode(), levels)

    def topic(self, topic: bytes) -> bytes:
        """Client topic name to broker topic name; raises :class:`MountError` when it gets too long."""
        mounted = self.dollar + topic[1:] if topic[:1] == b"$" else self.plain + topic
        if len(mounted) > MAX_TOPIC_BYTES:
            raise MountError("the topic is too long")
        return mounted

    def filter(self, topic_filter: bytes) -> bytes:
        """Client topic filter to broker filter; ``$share/g/f`` keeps its group (MQTT 5 s4.8.2)."""
        if not topic_filter.startswith(_SHARE):
            return self.topic(topic_filter)
        group, _, inner = topic_filter[len(_SHARE) :].partition(b"/")
        mounted = _SHARE + group + b"/" + self.topic(inner)
        if len(mounted) > MAX_TOPIC_BYTES:
            raise MountError("the topic filter is too long")
        return mounted

    def client_topic(self, mounted: bytes) -> bytes:
        """Broker topic name to client topic name.

        Raises :class:`MountError` for a topic outside this mount. That can only be a fault of the edge or a broker
        without its ACL: the caller closes the connection and reports it as critical.
        """
        if mounted.startswith(self.plain):
            return mounted[len(self.plain) :]
        if mounted.startswith(self.dollar):
            return b"$" + mounted[len(self.dollar) :]
        raise MountError("the topic lies outside the mount")


_ESCAPES = {ord("%"): "%25", ord("+"): "%2B", ord("#"): "%23", ord('"'): "%22", ord("\\"): "%5C"}


def upstream_client_id(org: str, client_id: str) -> str:
    """The client ID at the broker: ``org_x:`` and the client's own, escaped so that no two can meet.

    ``+`` and ``#`` make Mosquitto refuse every topic to the client, and a quote can be misread by VerneMQ's admin
    commands; these and ``%`` are percent-escaped, which is reversible and therefore keeps distinct ids distinct.
    """
    return f"{org}:{client_id.translate(_ESCAPES)}"


ORGANIZATION = re.compile(r"org_[a-z2-7]{12}")
