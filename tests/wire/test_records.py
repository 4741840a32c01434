"""What every record looks like on Redis: no field changes by accident, and records of an earlier release are read.

Two releases meet while an installation is upgraded: a new field has a default, and its place is at the end.
"""

from __future__ import annotations

import dataclasses
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import msgspec
import pytest

import cloudsignal.wire
from cloudsignal.wire.audit import AuditBatch, AuditEvent
from cloudsignal.wire.bundle import Bundle, Quotas
from cloudsignal.wire.change import Change
from cloudsignal.wire.codec import decode, encode
from cloudsignal.wire.credential import Credential, SealedCredential, Secret
from cloudsignal.wire.heads import Heads
from cloudsignal.wire.order import Order
from cloudsignal.wire.report import BrokerState, BundleReport, Heartbeat, LiveSession
from cloudsignal.wire.retained import RetainedEntry
from cloudsignal.wire.signed import Seal, Signed

ORG, NODE, TEN = "org_aaaaaaaaaaaa", "edge-1", 1_700_000_000
EVENT = {
    "id": "0190", "ts": 1, "kind": "connect", "org": "", "node": "", "session": "", "username": "", "client_id": "",
    "ip": "", "port": 0, "transport": "", "mqtt_version": "", "tls_version": "", "tls_cipher": "", "reason": "",
    "action": "", "topic": "", "qos": -1, "retain": False, "size": 0, "rule": "", "policy_digest": "", "count": 1,
    "details": {}, "repeats": "",
}  # fmt: skip
QUOTAS = {
    "connections": 1000, "messages_per_minute": 60000, "packet_bytes": 262144, "subscriptions_per_session": 100,
    "retained_messages": 10000, "retained_bytes": 16777216, "stored_sessions": 1000,
}  # fmt: skip
SECRET = {"token_id": "tok_1", "mac": b"m", "expires_at": TEN, "revoked": False, "until": 0, "retired": False}
SESSION = {
    "session": "s", "org": ORG, "username": "u", "client_id": "c", "node": NODE, "ip": "192.0.2.1", "port": 1,
    "transport": "mqtts", "mqtt_version": "5", "tls_version": "TLSv1.3", "tls_cipher": "x", "token_id": "tok_1",
    "connected_at": 1.5, "expires_at": 0, "v": 1,
}  # fmt: skip
BROKER = {
    "label": "b:1", "state": "reachable", "why": "", "since": 0.0, "at": 0.0, "latency_ms": -1.0, "members": ["n@b"],
    "missing": [], "cluster": "unknown", "draining": False, "drops": -1,
}  # fmt: skip
RECORDS: list[tuple[Any, dict[str, Any]]] = [
    (AuditEvent("0190", 1, "connect"), EVENT),
    (
        AuditBatch(NODE, "i", [AuditEvent("0190", 1, "connect")]),
        {"node": NODE, "incarnation": "i", "events": [EVENT], "v": 1},
    ),
    (Quotas(), QUOTAS),
    (
        Bundle(ORG, 7, "sha256:0", b"{}", "active", 1.5),
        {
            "org": ORG, "revision": 7, "digest": "sha256:0", "policy": b"{}", "status": "active", "issued_at": 1.5,
            "deployment": "", "quotas": QUOTAS, "publish_while_split": "accept", "v": 1,
        },
    ),
    (Signed(b"p", b"s"), {"payload": b"p", "signature": b"s"}),
    (
        Change("close", ORG, session="s", cause="kicked"),
        {"kind": "close", "org": ORG, "username": "", "session": "s", "cause": "kicked", "committed_at": 0.0, "v": 1},
    ),
    (Secret("tok_1", b"m", TEN), SECRET),
    (
        Credential(ORG, "u", 3, (Secret("tok_1", b"m", TEN),), {"role": "x"}),
        {
            "org": ORG, "username": "u", "revision": 3, "secrets": [SECRET], "claims": {"role": "x"}, "revoked": False,
            "v": 1,
        },
    ),
    (SealedCredential(b"p", b"s"), {"payload": b"p", "seal": b"s"}),
    (Heads(5, {ORG: (7, b"d")}), {"revision": 5, "orgs": {ORG: [7, b"d"]}, "v": 1}),
    (
        Order("erase", ORG, 1.5, 2.5),
        {"kind": "erase", "org": ORG, "issued_at": 1.5, "ends_at": 2.5, "names": [], "username": "", "v": 1},
    ),
    (
        BundleReport(NODE, ORG, 7, "sha256:0", "dep_1", "enforcing", "", 1.5),
        {
            "node": NODE, "org": ORG, "revision": 7, "digest": "sha256:0", "deployment": "dep_1", "status": "enforcing",
            "reason": "", "at": 1.5, "v": 1,
        },
    ),
    (
        Heartbeat(NODE, "i", 9, 1.5, 2.5, "h:1", 2, brokers=(BrokerState("b:1", "reachable", members=("n@b",)),)),
        {
            "node": NODE, "incarnation": "i", "sequence": 9, "started_at": 1.5, "at": 2.5, "address": "h:1",
            "sessions": 2, "counters": {}, "brokers": [BROKER], "v": 1,
        },
    ),
    (BrokerState("b:1", "reachable", members=("n@b",)), BROKER),
    (LiveSession(**SESSION), SESSION),
]  # fmt: skip
NOT_RECORDS = {RetainedEntry, Seal}
"""An entry of the ledger has a form of its own (``RetainedEntry.written``); a seal is how records are signed."""
REQUIRED_OF_VERSION_1 = {
    AuditEvent: 3, AuditBatch: 3, Quotas: 0, Bundle: 6, Signed: 2, Change: 2, Secret: 3, Credential: 3,
    SealedCredential: 2, Heads: 2, Order: 4, BundleReport: 8, BrokerState: 2, Heartbeat: 7,
    LiveSession: 14,
}  # fmt: skip
"""How many fields have no default. One more, and records of the release before are refused: that is a new version."""


def of_the_wire() -> set[type]:
    """Every dataclass of the package."""
    modules = [import_module(f"cloudsignal.wire.{found.name}") for found in iter_modules(cloudsignal.wire.__path__)]
    return {
        each
        for module in modules
        for each in vars(module).values()
        if isinstance(each, type) and dataclasses.is_dataclass(each) and each.__module__ == module.__name__
    }


def test_every_record_is_in_the_table() -> None:
    assert {type(record) for record, _ in RECORDS} == of_the_wire() - NOT_RECORDS == set(REQUIRED_OF_VERSION_1)


@pytest.mark.parametrize(("record", "written"), RECORDS, ids=lambda each: type(each).__name__)
def test_a_record_is_written_field_by_field_in_this_order(record: object, written: dict[str, Any]) -> None:
    found = msgspec.msgpack.decode(encode(record))
    assert list(found.items()) == list(written.items())
    assert decode(encode(record), type(record)) == record


@pytest.mark.parametrize("kind", sorted(REQUIRED_OF_VERSION_1, key=lambda kind: kind.__name__))
def test_a_record_without_the_fields_that_came_later_is_read(kind: type) -> None:
    required = REQUIRED_OF_VERSION_1[kind]
    written = next(written for record, written in RECORDS if type(record) is kind)
    early = dict(list(written.items())[:required])
    assert isinstance(decode(msgspec.msgpack.encode(early), kind), kind)
