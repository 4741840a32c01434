"""Pages: the audit."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from django.test import Client
from django.urls import reverse

from audit.access import cursor_of
from audit.models import Event
from cloudsignal.tenancy.scopes import platform_scope
from cloudsignal.wire.audit import uuid7
from orgs.access.grants import Access
from orgs.permissions import Role
from tests.support.audit_events import event as happening
from tests.support.audit_events import happened, keep
from tests.support.world import member, organization, person

if TYPE_CHECKING:
    from tests.web.conftest import Visitor

pytestmark = pytest.mark.django_db

HTMX = {"HX-Request": "true"}


def url(access: Access) -> str:
    """The list."""
    return reverse("audit:list", args=[access.org_id])


def test_a_denial_shows_topic_client_action_rule_and_origin(acme: Access, owner: Client) -> None:
    event = happened(acme)
    line = owner.get(url(acme), {"kind": "acl_denied"}).context["lines"][0]
    assert (line.title, line.no_rule, line.shape) == ("Denied", True, "none")
    page = owner.get(reverse("audit:event", args=[acme.org_id, line.key])).content.decode()
    for fact in ("agent-7", "c1", "192.0.2.7", "mqtts", "TLSv1.3", "TLS_AES_256_GCM_SHA384", "Publish", str(event.id)):
        assert fact in page
    assert "No rule allows it" in page
    assert "Simulate on the draft" in page


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"kind": "connect"}, {"connect"}),
        ({"username": "agent-9"}, {"auth_failed"}),
        ({"client_id": "c2"}, {"connect"}),
        ({"topic_prefix": "agents/"}, {"acl_denied"}),
        ({"topic_prefix": "gents/"}, set()),
        ({"reason": "bad_secret"}, {"auth_failed"}),
        ({"ip": "198.51.100.4"}, {"connect"}),
        ({"rule": "none"}, {"acl_denied"}),
        ({"rule": "some-other"}, set()),
        ({"action": "publish", "kind": "acl_denied"}, {"acl_denied"}),
        ({"action": "will"}, set()),
        ({"within": "15m", "kind": "disconnect"}, set()),
        ({"within": "1d", "kind": "disconnect"}, {"disconnect"}),
    ],
)
def test_filters_find_what_they_say(asked: dict[str, str], found: set[str], acme: Access, owner: Client) -> None:
    happened(acme)
    happened(acme, kind="connect", client_id="c2", ip="198.51.100.4", topic="", rule="")
    happened(acme, kind="auth_failed", username="agent-9", reason="bad_secret", topic="", rule="")
    happened(acme, timedelta(hours=2), kind="disconnect", topic="", rule="")
    page = owner.get(url(acme), asked)
    assert page.status_code == 200
    assert {line.event.kind for line in page.context["lines"]} == found
    assert len(page.context["pills"]) == len(asked)


@pytest.mark.parametrize("path", ["audit:list", "orgs:clients", "orgs:credentials", "orgs:expiry"])
def test_a_filter_that_a_list_does_not_have_is_refused_and_not_ignored(path: str, acme: Access, owner: Client) -> None:
    page = owner.get(reverse(path, args=[acme.org_id]), {"colour": "red"})
    assert "no filter called" in page.content.decode()
    assert "colour" in page.content.decode()


def test_a_long_reason_is_shown_in_full(acme: Access, owner: Client) -> None:
    reason = "rule a-rule-with-a-long-name would allow it, but " + "x" * 60
    event = happened(acme, rule="", reason=reason[:64], details={"reason": reason})
    assert reason in owner.get(url(acme)).content.decode()
    assert reason in owner.get(reverse("audit:event", args=[acme.org_id, cursor_of(event)])).content.decode()


def test_each_pill_links_to_the_list_without_it(acme: Access, owner: Client) -> None:
    page = owner.get(url(acme), {"kind": "acl_denied", "topic_prefix": "a/b", "within": "1h"})
    assert [(pill.label, pill.value, pill.without) for pill in page.context["pills"]] == [
        ("Event", "Denied", f"{url(acme)}?topic_prefix=a%2Fb&within=1h"),
        ("Topic starts with", "a/b", f"{url(acme)}?kind=acl_denied&within=1h"),
        ("Time", "Last hour", f"{url(acme)}?kind=acl_denied&topic_prefix=a%2Fb"),
    ]


@pytest.mark.parametrize(
    "asked",
    [{"kind": "nonsense"}, {"ip": "not an address"}, {"since": "yesterday"}, {"cursor": "junk"}, {"within": "9y"}],
)
def test_a_wrong_filter_is_explained_and_kept(asked: dict[str, str], acme: Access, owner: Client) -> None:
    page = owner.get(url(acme), asked)
    assert page.status_code == 422
    for name, value in asked.items():
        assert page.context["form"][name].value() == value
        assert page.context["form"].errors


def test_pages_follow_each_other_without_gap_or_overlap(acme: Access, owner: Client) -> None:
    events = [happened(acme, timedelta(seconds=number)) for number in range(120)]
    seen: list[uuid.UUID] = []
    address = f"{url(acme)}?kind=acl_denied"
    while address:
        page = owner.get(address)
        seen += [line.event.id for line in page.context["lines"]]
        address = page.context["older_url"]
    assert seen == [event.id for event in events]


def test_the_live_list_answers_only_when_something_is_new(acme: Access, owner: Client) -> None:
    happened(acme, timedelta(seconds=5))
    first = owner.get(url(acme), {"kind": "acl_denied"})
    poll = first.context["poll_url"]
    assert owner.get(poll, headers=HTMX).status_code == 204
    newer = happened(acme, topic="factory/stop")
    answer = owner.get(poll, headers=HTMX)
    part = answer.content.decode()
    assert answer.status_code == 200
    assert "<html" not in part
    assert part.index(str(newer.id)) < part.index("agents")
    assert part.count('class="fresh"') == 1


@pytest.mark.parametrize("upto", ["\u00b2", "\u0667" * 16, "-1", "9" * 40, "x", "1.x", "\0"])
def test_a_poll_with_a_junk_place_answers_all_the_same(acme: Access, owner: Client, upto: str) -> None:
    happened(acme)
    assert owner.get(url(acme), {"upto": upto}, headers=HTMX).status_code == 200


def test_the_first_event_of_an_empty_list_is_new(acme: Access, owner: Client) -> None:
    poll = owner.get(url(acme), {"kind": "acl_denied"}).context["poll_url"]
    happened(acme)
    assert owner.get(poll, headers=HTMX).content.decode().count('class="fresh"') == 1


def test_repetitions_are_one_line_with_the_sum_and_a_sum_that_rises_is_news(acme: Access, owner: Client) -> None:
    event = happened(acme, timedelta(seconds=9), id=uuid.UUID(uuid7(time.time() - 9)))
    poll = owner.get(url(acme), {"kind": "acl_denied"}).context["poll_url"]
    again = happened(acme, repeats=event.id, count=1_199, session="another")
    assert owner.get(poll, headers=HTMX).status_code == 200
    answer = owner.get(url(acme), {"kind": "acl_denied"})
    [shown] = answer.context["lines"]
    assert (shown.event.id, shown.event.total) == (event.id, 1_200)
    assert "1,200" in answer.content.decode()
    page = owner.get(reverse("audit:event", args=[acme.org_id, shown.key])).content.decode()
    assert "1,200 within a minute" in page
    repetition = owner.get(reverse("audit:event", args=[acme.org_id, cursor_of(again)])).content.decode()
    assert shown.key in repetition, "leads to the first one"


def test_only_the_newest_page_is_live(acme: Access, owner: Client) -> None:
    for number in range(60):
        happened(acme, timedelta(seconds=number))
    older = owner.get(owner.get(url(acme), {"kind": "acl_denied"}).context["older_url"])
    assert older.context["poll_url"] == ""
    assert older.context["newest_url"] == f"{url(acme)}?kind=acl_denied"


def test_events_of_others_are_not_seen(acme: Access, owner: Client) -> None:
    other = organization("Other")
    event = happened(other, topic="secret/of/other")
    assert "secret/of/other" not in owner.get(url(acme)).content.decode()
    key = cursor_of(event)
    assert owner.get(reverse("audit:event", args=[acme.org_id, key])).status_code == 404


@pytest.mark.parametrize(
    "key",
    [
        "junk",
        "1.junk",
        "1_0.00000000-0000-0000-0000-000000000000",
        "99999999999999999999999.00000000-0000-0000-0000-000000000000",
    ],
)
def test_a_malformed_event_key_is_not_found(key: str, acme: Access, owner: Client) -> None:
    assert owner.get(reverse("audit:event", args=[acme.org_id, key])).status_code == 404


def test_a_change_shows_before_and_after(acme: Access, owner: Client) -> None:
    owner.post(reverse("orgs:settings", args=[acme.org_id]), {"name": "Acme Two"})
    line = owner.get(url(acme), {"kind": "org.updated"}).context["lines"][0]
    page = owner.get(reverse("audit:event", args=[acme.org_id, line.key]))
    assert [(change.name, change.before, change.after) for change in page.context["changes"]] == [
        ("name", "Acme", "Acme Two")
    ]
    assert acme.user is not None
    assert acme.user.email in page.content.decode()


def test_an_auditor_reads_and_a_developer_does_not(acme: Access, visitor: Visitor) -> None:
    happened(acme)
    auditor = visitor(member(acme.org, Role.AUDITOR))
    key = auditor.get(url(acme)).context["lines"][0].key
    assert "Simulate on the draft" not in auditor.get(reverse("audit:event", args=[acme.org_id, key])).content.decode()
    assert visitor(member(acme.org, Role.DEVELOPER)).get(url(acme)).status_code == 403


def test_the_platforms_log_shows_operators_what_belongs_to_no_organization(acme: Access, visitor: Visitor) -> None:
    happened(acme, topic="of/a/tenant")
    lost = {"node": "e1", "missing": 3}
    keep([happening("", kind="tls_failed", ip="192.0.2.9", reason="protocol_version", node="e1") for _ in range(60)])
    with platform_scope():
        Event.objects.create(ts=datetime.now(UTC), id=uuid.uuid4(), kind="audit.gap", node="ingest", details=lost)
    operator = visitor(person(operator=True))
    log = reverse("audit:log")
    page = operator.get(log)
    text = page.content.decode()
    assert len(page.context["lines"]) == 50
    for fact in ("Audit gap", "missing", "192.0.2.9", "protocol_version"):
        assert fact in text
    assert "of/a/tenant" not in text
    assert len(operator.get(page.context["older_url"]).context["lines"]) == 11
    assert len(operator.get(log, {"kind": "audit.gap"}).context["lines"]) == 1
    refused = operator.get(log, {"ip": "nowhere"})
    assert (refused.status_code, refused.context["form"]["ip"].value()) == (422, "nowhere")
