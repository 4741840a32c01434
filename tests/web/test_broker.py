"""Page and API: retained messages and stored sessions."""

from __future__ import annotations

import time

import pytest
from django.test import Client
from django.urls import reverse

from audit.models import Event
from cloudsignal.errors import Conflict, Forbidden, Invalid, NotFound
from cloudsignal.models import OutboxRow
from cloudsignal.redis import client as redis_client
from cloudsignal.tenancy.scopes import org_scope, platform_scope
from cloudsignal.wire import keys
from cloudsignal.wire.report import LiveSession
from orgs.access.grants import Access, access_org
from orgs.broker.clearing import clear_retained, release_session
from orgs.broker.reads import list_retained, list_stored
from orgs.credentials.issuing import issue_credential
from orgs.permissions import Role
from tests.support.sessions import publish
from tests.support.world import member, person

pytestmark = pytest.mark.django_db


def fill(access: Access) -> None:
    """Two retained messages and two stored sessions, as edges note them."""
    redis, org, now = redis_client(), access.org_id, int(time.time())
    redis.hset(keys.retained(org), mapping={"plant/+x<b>": f"2048 {now} 0 sensor", "a": "10 0 0 "})
    redis.set(keys.retained_bytes(org), 2_058)
    redis.zadd(keys.stored(org), {"kept 1": now + 3_600, "live-1": now + 7_200})
    redis.set(keys.client(org, "kept 1"), "sensor\n0190", ex=60)
    redis.set(keys.client(org, "live-1"), "sensor\n0191", ex=60)
    live = LiveSession(
        session="0191", org=org, username="sensor", client_id="live-1", node="n-broker", ip="", port=0,
        transport="mqtts", mqtt_version="5", tls_version="", tls_cipher="", token_id="", connected_at=1.0, expires_at=0,
    )  # fmt: skip
    publish(redis, live)


def waiting(task: str) -> list[dict[str, str]]:
    with platform_scope():
        return [row.payload for row in OutboxRow.objects.filter(task=task)]


def test_the_page_lists_topics_sizes_and_sessions_and_filters_them(acme: Access, owner: Client) -> None:
    fill(acme)
    url = reverse("orgs:broker", args=[acme.org_id])
    page = owner.get(url).content.decode()
    assert "plant/+x&lt;b&gt;" in page
    assert "kept 1" in page
    assert "2 of 10,000" in page
    found = owner.get(url, {"find": "plant"}).content.decode()
    assert "plant/+x" in found
    assert "kept 1" not in found


def test_pages_that_belong_to_another_page_keep_it_marked_in_the_navigation(acme: Access, owner: Client) -> None:
    issue_credential(acme, username="sensor", ttl=600)
    for name, arguments, section in (
        ("orgs:broker", [], "Clients"),
        ("orgs:clients", [], "Clients"),
        ("orgs:username", ["sensor"], "Credentials"),
    ):
        response = owner.get(reverse(name, args=[acme.org_id, *arguments]))
        assert [link.title for link in response.context["shell"].nav if link.current] == [section], name
        assert 'aria-current="page"' in response.content.decode()


def test_lists_are_sorted_and_say_what_is_not_known(acme: Access) -> None:
    fill(acme)
    retained = list_retained(acme)
    assert [(row.topic, row.size, row.username) for row in retained.rows] == [
        ("a", 10, ""), ("plant/+x<b>", 2_048, "sensor"),
    ]  # fmt: skip
    assert (retained.rows[0].published_at, retained.total, retained.bytes) == (None, 2, 2_058)
    assert [(row.client_id, row.connected) for row in list_stored(acme).rows] == [("kept 1", False), ("live-1", True)]
    assert [row.topic for row in list_retained(acme, find="sensor").rows] == ["plant/+x<b>"]


def test_an_owner_clears_a_topic_and_it_is_written_down(acme: Access, owner: Client) -> None:
    url = reverse("orgs:retained-clear", args=[acme.org_id])
    assert "plant/1" in owner.get(url, {"topic": "plant/1"}).content.decode()
    assert owner.post(url, {"topic": "plant/1"}).status_code == 302
    assert waiting("orgs.tasks.clear_retained")[0]["topics"] == '["plant/1"]'
    with org_scope(acme.org_id):
        assert Event.objects.get(kind="retained.cleared").after["topics"] == ["plant/1"]


def test_operators_clear_too_and_administrators_do_not(acme: Access) -> None:
    clear_retained(access_org(person(operator=True), acme.org_id), everything=True)
    assert waiting("orgs.tasks.clear_retained")[0]["username"] == "*"
    with pytest.raises(Forbidden, match="owner"):
        clear_retained(member(acme.org, Role.ADMIN), everything=True)


@pytest.mark.parametrize(
    "wanted",
    [{}, {"topics": ["a"], "everything": True}, {"topics": ["a/#"]}, {"topics": [""]}, {"topics": ["t" * 1_025]},
     {"topics": ["a"] * 501}],
)  # fmt: skip
def test_what_cannot_be_cleared_is_refused_with_the_reason(acme: Access, wanted: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        clear_retained(acme, **wanted)  # type: ignore[arg-type]
    assert waiting("orgs.tasks.clear_retained") == []


def test_long_client_ids_that_begin_alike_are_released_each(acme: Access) -> None:
    """Rows of the outbox with one key are sent once."""
    alike = [f"{'c' * 1_000}{number}" for number in range(2)]
    redis_client().zadd(keys.stored(acme.org_id), dict.fromkeys(alike, time.time() + 3_600))
    for client_id in alike:
        release_session(acme, client_id)
    with platform_scope():
        rows = OutboxRow.objects.filter(task="orgs.tasks.release_session")
        assert len({row.key for row in rows}) == 2


def test_a_stored_session_is_released_and_a_live_one_is_not(acme: Access, owner: Client) -> None:
    fill(acme)
    url = reverse("orgs:stored-release", args=[acme.org_id])
    assert owner.post(url, {"client_id": "kept 1"}).status_code == 302
    (payload,) = waiting("orgs.tasks.release_session")
    assert payload["client_id"] == "kept 1"
    with pytest.raises(Conflict, match="connected"):
        release_session(acme, "live-1")
    with pytest.raises(NotFound):
        release_session(acme, "kept")
    with org_scope(acme.org_id):
        assert Event.objects.get(kind="session.released").username == "sensor"
