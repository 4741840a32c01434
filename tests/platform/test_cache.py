"""The cache on Redis: counts for the sign-in pages, without trust in what Redis holds."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from django.core.cache import cache
from redis import Redis

from cloudsignal.cache import LONGEST
from cloudsignal.redis import client

pytestmark = pytest.mark.django_db


@pytest.fixture
def redis() -> Redis:
    return client()


@pytest.mark.parametrize("value", [1, True, [1.5, 2.5], {"a": None}, "é"])
def test_what_was_kept_comes_back(value: object, redis: Redis) -> None:
    cache.set("test:kept", value, 60)
    assert cache.get("test:kept") == value
    assert cache.add("test:kept", 2) is False
    cache.delete("test:kept")
    assert cache.get("test:kept", "nothing") == "nothing"


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{", pickle.dumps([1.0])])
def test_what_somebody_else_put_there_counts_as_absent(content: bytes, redis: Redis) -> None:
    redis.set(cache.make_key("test:foreign"), content)
    assert cache.get("test:foreign", "nothing") == "nothing"


def test_a_writer_of_redis_cannot_run_code_in_the_dashboard(redis: Redis, tmp_path: Path) -> None:
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    redis.set(cache.make_key("test:trap"), trap)
    assert cache.get("test:trap") is None
    assert not (tmp_path / "sprung").exists()
    pickle.loads(trap)  # noqa: S301 - that the trap works at all
    assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize("seconds", [None, 2 * LONGEST])
def test_what_would_lie_longer_than_anything_of_ours_counts_for_nothing(redis: Redis, seconds: int | None) -> None:
    name = cache.make_key("test:foreign")
    redis.set(name, "[1.5]", ex=seconds)
    assert cache.get("test:foreign", []) == []
    redis.set(name, "1", ex=seconds)
    assert cache.add("test:foreign", 2, 60) is True
    redis.delete(name)
    redis.rpush(name, "a list")
    assert cache.add("test:foreign", 2, 60) is True
    cache.set("test:foreign", 3, timeout=None)
    assert 0 < redis.ttl(name) <= LONGEST
    cache.delete("test:foreign")


@pytest.mark.parametrize("content", ["5", '"text"', '["a"]', "{}", "null"])
def test_a_value_that_a_count_cannot_go_on_with_counts_as_absent(redis: Redis, content: str) -> None:
    redis.set(cache.make_key("test:foreign"), content, ex=60)
    assert cache.get("test:foreign", []) == []
