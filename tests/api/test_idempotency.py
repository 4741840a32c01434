"""What ``Idempotency-Key`` keeps on Redis: only for what changes something, small, and bounded per organization."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis

from cloudsignal.api import idempotency
from cloudsignal.redis import client as redis_client
from tests.support.calling import World

pytestmark = pytest.mark.django_db

KEY = {"kind": "pk", "name": "Web"}


def kept() -> list[bytes]:
    """The names of what is kept."""
    return list(redis_client().scan_iter(match="cs1:idempotency:*"))


@pytest.fixture
def full() -> Iterator[Redis]:
    """A Valkey that has no room left."""
    redis = redis_client()
    before = redis.config_get("maxmemory")["maxmemory"]
    redis.config_set("maxmemory", 1)
    yield redis
    redis.config_set("maxmemory", before)


def test_what_changes_nothing_keeps_no_answer(acme: World) -> None:
    ci = acme.caller()
    for path, body in (
        ("validate", {}),
        ("diff", {}),
        ("simulate", {"username": "a", "action": "publish", "topic": "t"}),
    ):
        ci.post(f"/v2/policy/{path}", body, Idempotency_Key="one")
    assert kept() == []
    assert ci.post("/v2/api-keys", KEY, Idempotency_Key="one").status == 201
    assert len(kept()) == 1


def test_of_an_answer_that_is_too_large_only_the_fact_is_kept(acme: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "ANSWER_MAX", 300)
    ci = acme.caller()
    assert ci.post("/v2/api-keys", {**KEY, "name": "x" * 60}, Idempotency_Key="one").status == 201
    (name,) = kept()
    assert len(redis_client().get(name)) < 300  # type: ignore[arg-type]
    again = ci.post("/v2/api-keys", {**KEY, "name": "x" * 60}, Idempotency_Key="one")
    assert (again.status, again.code) == (409, "answer_not_kept")
    other = ci.post("/v2/api-keys", KEY, Idempotency_Key="one")
    assert (other.status, other.code) == (422, "idempotency_key_reused")
    assert len([row for row in ci.get("/v2/api-keys").body["data"] if row["kind"] == "pk"]) == 1


@pytest.mark.parametrize("bound", [("RECORDS_MAX", 3), ("BYTES_MAX", 3_000)])
def test_one_organization_keeps_so_much_and_no_more(
    acme: World, rival: World, monkeypatch: pytest.MonkeyPatch, bound: tuple[str, int]
) -> None:
    theirs = rival.caller()
    first = theirs.post("/v2/api-keys", KEY, Idempotency_Key="theirs").body
    monkeypatch.setattr(idempotency, *bound)
    ci = acme.caller()
    for number in range(8):
        assert ci.post("/v2/api-keys", {**KEY, "name": f"k{number}"}, Idempotency_Key=f"k{number}").status == 201
    sizes = [redis_client().strlen(name) for name in kept()]
    if bound[0] == "RECORDS_MAX":
        assert len(sizes) == 3 + 1
    else:
        assert sum(sizes) <= 3_000 + max(sizes)
        assert len(sizes) > 2
    assert redis_client().zcard(f"cs1:idempotencies:{acme.id}") == len(sizes) - 1
    last = ci.post("/v2/api-keys", {**KEY, "name": "k7"}, Idempotency_Key="k7")
    assert last.headers["Idempotent-Replayed"] == "true"
    assert theirs.post("/v2/api-keys", KEY, Idempotency_Key="theirs").body == first


def test_a_valkey_without_room_refuses_what_could_be_done_twice_and_serves_the_rest(acme: World, full: Redis) -> None:
    ci = acme.caller()
    answer = ci.post("/v2/api-keys", KEY, Idempotency_Key="one")
    assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, "unavailable", "5")
    assert ci.get("/v2/api-keys").status == 200
    assert ci.post("/v2/api-keys", KEY).status == 201
    full.config_set("maxmemory", 0)
    assert ci.post("/v2/api-keys", {**KEY, "name": "Two"}, Idempotency_Key="one").status == 201


@pytest.mark.parametrize("seconds", [None, idempotency.KEPT_SECONDS])
@pytest.mark.parametrize("content", ["running", "nonsense", "a list"])
def test_what_somebody_else_put_in_place_of_an_answer_refuses_nobody_for_ever(
    acme: World, content: str, seconds: int | None
) -> None:
    ci, redis = acme.caller(), redis_client()
    assert ci.post("/v2/api-keys", KEY, Idempotency_Key="one").status == 201
    (name,) = kept()
    redis.delete(name)
    if content == "a list":
        redis.rpush(name, content)
    else:
        redis.set(name, content)
    if seconds:
        redis.expire(name, seconds)
    answer = ci.post("/v2/api-keys", {**KEY, "name": "Two"}, Idempotency_Key="one")
    if content == "nonsense" and seconds:  # as long as an answer of ours: it may be one that cannot be read any more
        assert (answer.status, answer.code) == (409, "request_lost")
    else:
        assert answer.status == 201
        assert redis.ttl(name) <= idempotency.KEPT_SECONDS


def test_a_request_under_way_keeps_its_key(acme: World) -> None:
    ci, redis = acme.caller(), redis_client()
    assert ci.post("/v2/api-keys", KEY, Idempotency_Key="one").status == 201
    (name,) = kept()
    redis.set(name, "running", ex=idempotency.RUNNING_SECONDS)
    answer = ci.post("/v2/api-keys", KEY, Idempotency_Key="one")
    assert (answer.status, answer.code) == (409, "request_running")


@pytest.mark.parametrize("spoilt", ["type", "score", "size", "name"])
def test_a_spoilt_index_neither_forgets_answers_nor_deletes_other_keys(acme: World, spoilt: str) -> None:
    redis, index = redis_client(), f"cs1:idempotencies:{acme.id}"
    redis.set("cs1:precious", "kept")
    large = idempotency.BYTES_MAX * 2
    entries = {
        "score": {b"1 cs1:idempotency:x": 1e15},
        "size": {f"{large} cs1:idempotency:x".encode(): 1.9e9, b"no number": 1.9e9},
        "name": {f"{idempotency.ANSWER_MAX} cs1:precious".encode(): 1.9e9},
    }
    if spoilt == "type":
        redis.set(index, "text")
    else:
        redis.zadd(index, entries[spoilt])  # type: ignore[arg-type]
    ci = acme.caller()
    first = ci.post("/v2/api-keys", KEY, Idempotency_Key="one")
    again = ci.post("/v2/api-keys", KEY, Idempotency_Key="one")
    assert (first.status, again.headers.get("Idempotent-Replayed")) == (201, "true")
    assert redis.get("cs1:precious") == b"kept"
    assert redis.zcard(index) == 1
    redis.delete("cs1:precious")
