"""Audit batches and the ids of their events."""

from __future__ import annotations

import dataclasses
import uuid

import pytest

from cloudsignal.wire.audit import AuditBatch, AuditEvent, decode_batch, encode_batch, uuid7
from cloudsignal.wire.codec import WireError, encode


def test_a_batch_comes_back_as_it_was() -> None:
    event = AuditEvent(id=uuid7(), ts=1_700_000_000_000_000, kind="connect", details={"seconds": 1.5, "clean": True})
    batch = AuditBatch(node="edge-1", incarnation=uuid7(), events=[event])
    assert decode_batch(encode_batch(batch)) == batch


def test_a_batch_of_another_version_is_refused() -> None:
    with pytest.raises(WireError, match="version"):
        decode_batch(encode(AuditBatch(node="edge-1", incarnation="", events=[], v=9)))


def test_no_field_could_hold_a_payload() -> None:
    names = {field.name for field in dataclasses.fields(AuditEvent)}
    assert not {name for name in names if "payload" in name or "message" in name or "body" in name}


def test_ids_are_version_7_and_rise_with_time() -> None:
    ids = [uuid7(now) for now in (1.0, 2.0, 1_700_000_000.0, 1_800_000_000.0)]
    assert ids == sorted(ids)
    assert {(uuid.UUID(text).version, uuid.UUID(text).variant) for text in ids} == {(7, uuid.RFC_4122)}
    assert uuid.UUID(uuid7(1_700_000_000.123)).int >> 80 == 1_700_000_000_123
