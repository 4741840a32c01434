"""The names of every key and stream on Redis. All start with the version of the layout."""

from __future__ import annotations

PREFIX = "cs1:"

CHANGES = f"{PREFIX}changes"
"""Stream of :class:`~cloudsignal.wire.change.Change`: what an edge must look at again, in order. An edge blocks on
it for speed and remembers the last id it has applied; one that was away reads on from there. When its last id
is older than the first entry (the stream is trimmed), it re-reads everything it holds."""

CHANGES_MAXLEN = 100_000
"""Entries kept in :data:`CHANGES` (approximate trimming)."""

AUDIT = f"{PREFIX}audit"
"""Stream of audit batches, one blob per entry (field ``b``), see :mod:`cloudsignal.wire.audit`."""

REPORTS = f"{PREFIX}reports"
"""Stream of :class:`~cloudsignal.wire.report.BundleReport` (field ``b``): what an edge did with a bundle."""

ORDERS = f"{PREFIX}orders"
"""Stream of signed :class:`~cloudsignal.wire.order.Order` (field ``b``); the edge that carries one out deletes it."""

FIELD = "b"
"""The one field of every stream entry: the encoded record."""


def bundle(org: str) -> str:
    """Hash ``{rev, b}``: the revision in decimal and the signed bundle of one organization."""
    return f"{PREFIX}bundle:{org}"


HEADS = f"{PREFIX}heads"
"""String: the signed list of the newest bundle of each organization (:class:`~cloudsignal.wire.heads.Heads`)."""

BUNDLE_PATTERN = f"{PREFIX}bundle:*"


def credential(org: str, username: str) -> str:
    """Hash ``{rev, b}``: the revision in decimal and the sealed record of one (organization, local username).

    Written by a script that refuses an older revision, so that late and doubled pushes change nothing.
    """
    return f"{PREFIX}cred:{org}:{username}"


def node(name: str) -> str:
    """String with expiry: the heartbeat of one edge process (:class:`~cloudsignal.wire.report.Heartbeat`)."""
    return f"{PREFIX}node:{name}"


NODE_PATTERN = f"{PREFIX}node:*"


def sessions(node_name: str) -> str:
    """Hash with expiry: session id -> :class:`~cloudsignal.wire.report.LiveSession` of one edge process."""
    return f"{PREFIX}sessions:{node_name}"


def live(org: str) -> str:
    """Hash with expiry: session id -> the node that lists it in :func:`sessions`. Pages read one organization's.

    An id that its node lists no more is left over, and taken away by whoever finds it.
    """
    return f"{PREFIX}live:{org}"


def client(org: str, client_id: str) -> str:
    """String with expiry: ``username\\nsession id`` of the live or stored session of a client ID."""
    return f"{PREFIX}client:{org}:{client_id}"


def filters(org: str, client_id: str) -> str:
    """Hash with expiry: what a stored session is subscribed to, filter -> how it was asked for. A hint, no grant.

    The filter as its client names it; then the options byte, 0x80 added while the policy does not grant it, and the
    Subscription Identifier in four bytes, 0 for none.
    """
    return f"{PREFIX}subs:{org}:{client_id}"


def stored(org: str) -> str:
    """Sorted set: client IDs whose session outlives its connection, by when the broker may drop it (seconds)."""
    return f"{PREFIX}stored:{org}"


def retained(org: str) -> str:
    """Hash: topic as the client names it -> :class:`~cloudsignal.wire.retained.RetainedEntry`. Never a payload."""
    return f"{PREFIX}retained:{org}"


def retained_bytes(org: str) -> str:
    """Number: the sum of the sizes in :func:`retained`."""
    return f"{PREFIX}retained-bytes:{org}"


def retained_ends(org: str) -> str:
    """Sorted set: topics of :func:`retained` whose message expires, by when (seconds since the epoch)."""
    return f"{PREFIX}retained-ends:{org}"


def retained_counted(org: str) -> str:
    """String: there once the ledger has been compared with the broker; gone with it when Redis is emptied."""
    return f"{PREFIX}retained-counted:{org}"


def shipped(node_name: str) -> str:
    """String with expiry: a counter an edge writes to learn that Redis has everything before it on its disk."""
    return f"{PREFIX}shipped:{node_name}"
