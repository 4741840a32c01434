"""Pages: the draft, the simulator, review, deployments, versions."""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from django.test import Client
from django.urls import reverse

from acl import bench
from acl.access import current_deployment, get_draft
from acl.models import Deployment, Node, Target
from acl.models.cluster import DEFAULT_CLUSTER, Cluster
from acl.policy.language.presets import PRESETS, preset
from acl.policy.language.schema import schema_text
from acl.services.deployments import deploy
from acl.services.drafts import load_preset, save_draft
from cloudsignal.tenancy.scopes import org_scope
from orgs.access.grants import Access
from orgs.credentials.issuing import issue_credential
from orgs.permissions import Role
from tests.support.world import member

if TYPE_CHECKING:
    from tests.web.conftest import Visitor

pytestmark = pytest.mark.django_db

POLICY = """version: "3"
rules:
  - id: own-card
    topic: agents/{username}/card
    qos: 1
  - id: no-secrets
    effect: deny
    topic: agents/+/secret
"""
BROKEN = 'version: "3"\nrules:\n  - id: a\n    topic: a/#/b\n'
HTMX = {"HX-Request": "true"}


def url(name: str, access: Access, *arguments: object) -> str:
    """A URL of the access control pages."""
    return reverse(f"acl:{name}", args=[access.org_id, *arguments])


def deployed(access: Access, text: str, note: str = "") -> None:
    """Save and deploy ``text``."""
    save_draft(access, text=text)
    deploy(access, note=note)


def sent(page: Any, name: str) -> str:
    """What the first field of this name on ``page`` would send."""
    field = re.search(rf'<input[^>]* name="{name}"[^>]*>', page.content.decode())
    assert field, f"there is no {name} on the page"
    value = re.search(r'value="([^"]*)"', field.group())
    return html.unescape(value[1]) if value else ""


def test_the_draft_is_saved_as_typed_errors_and_all(acme: Access, owner: Client) -> None:
    etag = get_draft(acme).etag
    answer = owner.post(url("save", acme), {"text": BROKEN.replace("\n", "\r\n"), "etag": etag}, follow=True)
    assert get_draft(acme).text == BROKEN
    assert "Draft saved" in answer.content.decode()


def test_saving_with_htmx_answers_with_the_state_and_the_next_etag(acme: Access, owner: Client) -> None:
    sent = {"text": POLICY, "etag": get_draft(acme).etag}
    answer = owner.post(url("save", acme), sent, headers=HTMX)
    assert get_draft(acme).etag.strip('"') in answer.content.decode()
    assert "draft-saved" in answer.headers["HX-Trigger"]
    assert "<html" not in answer.content.decode()


@pytest.mark.parametrize("headers", [{}, HTMX])
def test_what_another_person_saved_is_not_overwritten_and_nothing_typed_is_lost(
    headers: dict[str, str], acme: Access, owner: Client
) -> None:
    stale = get_draft(acme).etag
    save_draft(member(acme.org, Role.DEVELOPER), text="version: '3'\n")
    answer = owner.post(url("save", acme), {"text": POLICY, "etag": stale}, headers=headers)
    assert answer.status_code == 409
    assert get_draft(acme).text == "version: '3'\n"
    assert "Overwrite with my text" in answer.content.decode()
    if not headers:
        assert answer.context["text"] == POLICY
    theirs = get_draft(acme).etag
    assert theirs.replace('"', "&quot;") in answer.content.decode()
    assert owner.post(url("save", acme), {"text": POLICY, "etag": [stale, theirs]}).status_code == 302
    assert get_draft(acme).text == POLICY


def test_too_large_a_text_is_refused_and_kept(acme: Access, owner: Client) -> None:
    text = "#" * (1024 * 1024 + 1)
    answer = owner.post(url("save", acme), {"text": text, "etag": get_draft(acme).etag})
    assert answer.status_code == 422
    assert answer.context["text"] == text
    assert "at most 1 MiB" in answer.content.decode()


def test_findings_carry_their_place_and_nothing_is_stored(acme: Access, owner: Client) -> None:
    before = get_draft(acme).text
    answer = owner.post(url("check", acme), {"text": BROKEN}, headers=HTMX).content.decode()
    assert 'data-level="error"' in answer
    assert 'data-from="4:' in answer
    assert get_draft(acme).text == before
    without_script = owner.post(url("check", acme), {"text": BROKEN})
    assert without_script.context["text"] == BROKEN
    assert "line 4" in without_script.content.decode()


def test_of_many_findings_and_tests_a_page_lists_the_first_two_hundred(acme: Access, owner: Client) -> None:
    """Thousands would keep a thread of the web busy with one page."""
    wanted = ["allow"] * 300 + ["deny"]
    tests = "".join(f"  - {{as: d, do: pub, topic: a/{at}, expect: {each}}}\n" for at, each in enumerate(wanted))
    rules = "".join(f"  - {{topic: 'a/#', id: r{at}}}\n" for at in range(300))
    text = f"version: '3'\nrules:\n{rules}tests:\n{tests}"
    page = owner.post(url("check", acme), {"text": text}, headers=HTMX).content.decode()
    assert page.count("data-level=") == 200
    assert "there is no room for here" in page
    assert page.count("Test failed") == 1, "those that fail come first"
    save_draft(acme, text=text)
    page = owner.get(url("review", acme)).content.decode()
    assert "101 tests that there is no room for here" in page
    assert "1 of 301 fail" in page


def test_a_failing_test_of_the_file_is_listed(acme: Access, owner: Client) -> None:
    text = POLICY + "tests:\n  - {name: wrong, as: {username: a}, do: pub, topic: agents/a/card, expect: deny}\n"
    assert "Test failed" in owner.post(url("check", acme), {"text": text}, headers=HTMX).content.decode()


def ask(**changes: str) -> dict[str, str]:
    """What the simulator sends."""
    asked = {"text": POLICY, "username": "agent-7", "client_id": "c1", "action": "pub", "topic": "agents/agent-7/card"}
    return asked | {"qos": "1", "claims": ""} | changes


@pytest.mark.parametrize("headers", [{}, HTMX])
def test_the_simulator_judges_the_text_as_it_stands(headers: dict[str, str], acme: Access, owner: Client) -> None:
    before = get_draft(acme).text
    answer = owner.post(url("simulate", acme), ask(), headers=headers)
    verdict = answer.context["simulated"].verdict
    assert (verdict.word, verdict.decision.rule, verdict.line) == ("Allowed", "own-card", 3)
    assert get_draft(acme).text == before


@pytest.mark.parametrize(
    ("changes", "word", "shape"),
    [
        ({"topic": "agents/agent-8/card"}, "Denied: no rule allows it", "none"),
        ({"topic": "agents/x/secret"}, "Denied by a rule", "bad"),
        ({"qos": "2"}, "Denied: no rule allows it", "none"),
        ({"action": "sub", "topic": "agents/+/card"}, "Denied: no rule allows it", "none"),
    ],
)
def test_no_rule_is_a_verdict_of_its_own(
    changes: dict[str, str], word: str, shape: str, acme: Access, owner: Client
) -> None:
    verdict = owner.post(url("simulate", acme), ask(**changes), headers=HTMX).context["simulated"].verdict
    assert (verdict.word, verdict.shape) == (word, shape)


def test_holes_and_near_misses_are_shown(acme: Access, owner: Client) -> None:
    holes = 'version: "3"\nrules:\n  - {id: no, effect: deny, topic: a/secret}\n  - {id: all, topic: a/#}\n'
    page = owner.post(url("simulate", acme), ask(text=holes, action="sub", topic="a/#"), headers=HTMX).content.decode()
    assert "Allowed, with exceptions" in page
    assert "not delivered" in page
    assert "qos 2 above 1" in owner.post(url("simulate", acme), ask(qos="2"), headers=HTMX).content.decode()


def test_nobody_loses_what_was_typed_while_many_policies_are_being_looked_at(
    acme: Access, owner: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "PER_ORG", 0)
    page = owner.get(url("policy", acme))
    assert page.status_code == 200
    assert "being looked at already; try again" in page.content.decode()
    assert "No findings" not in page.content.decode()
    shown = owner.post(url("simulate", acme), ask(text=POLICY + "# typed\n")).content.decode()
    assert "# typed" in shown
    assert owner.post(url("save", acme), {"text": POLICY}).status_code == 302, "saving looks at nothing"
    refused = owner.get(url("review", acme))
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "2")


def test_a_long_policy_that_says_nothing_of_a_request_is_not_called_empty(acme: Access, owner: Client) -> None:
    text = 'version: "3"\nrules:\n' + "".join(f"  - {{id: r{n}, topic: t/{n}}}\n" for n in range(300))
    page = owner.post(url("simulate", acme), ask(text=text, topic="elsewhere"), headers=HTMX).content.decode()
    assert "None of the 300 rules matches this request" in page
    assert "The policy has no rules" not in page


def test_many_topics_in_few_rules_keep_nobody_waiting(acme: Access, owner: Client) -> None:
    """Warnings and suggestions took minutes: their time grows with the topics, however few the rules."""
    rule = "  - {{id: r{0}, topic: [{1}]}}\n"
    topics = [", ".join(f"a/+/{n}/{m}" for m in range(67)) for n in range(30)]
    text = 'version: "3"\nrules:\n' + "".join(rule.format(n, each) for n, each in enumerate(topics))
    page = owner.post(url("simulate", acme), ask(text=text, topic="elsewhere"), headers=HTMX)
    assert page.context["simulated"].verdict.suggestions == ()
    assert page.context["examined"].unlinted
    page = owner.post(url("check", acme), {"text": text}, headers=HTMX)
    assert "Too many topics to check for warnings here" in page.content.decode()


def test_of_a_long_policy_the_deciding_rule_is_listed_whatever_comes_before_it(acme: Access, owner: Client) -> None:
    text = 'version: "3"\nrules:\n' + "".join(f"  - {{id: r{n}, topic: a/#, qos: 0}}\n" for n in range(300))
    text += "  - {id: last, topic: a/b}\n"
    page = owner.post(url("simulate", acme), ask(text=text, topic="a/b"), headers=HTMX)
    rules = page.context["simulated"].verdict.rules
    assert (len(rules), rules[0].rule, rules[-1].rule, rules[-1].outcome) == (200, "r0", "last", "decides")
    assert "Not listed: 101 further rules." in page.content.decode()


def test_a_known_username_is_judged_with_its_stored_claims(acme: Access, owner: Client) -> None:
    issue_credential(acme, username="agent-7", claims={"role": "boss"})
    text = 'version: "3"\nrules:\n  - {id: boss, who: {claims: {role: boss}}, topic: "#"}\n'
    answer = owner.post(url("simulate", acme), ask(text=text), headers=HTMX)
    assert answer.context["simulated"].verdict.word == "Allowed"
    assert "Uses the stored claims of agent-7" in answer.content.decode()
    other = owner.post(url("simulate", acme), ask(text=text, claims="role = clerk"), headers=HTMX)
    assert other.context["simulated"].verdict.shape == "none"


@pytest.mark.parametrize(
    ("field", "value"),
    [("topic", ""), ("topic", "a/+"), ("username", ""), ("action", "fly"), ("qos", "3"), ("claims", "x")],
)
def test_a_request_no_client_could_make_is_explained_at_its_field(
    field: str, value: str, acme: Access, owner: Client
) -> None:
    for headers in ({}, HTMX):
        answer = owner.post(url("simulate", acme), ask(**{field: value}), headers=headers)
        assert field in answer.context["simulated"].form.errors
        assert answer.context["simulated"].form[field].value() == value


def test_a_text_with_errors_gives_no_verdict(acme: Access, owner: Client) -> None:
    page = owner.post(url("simulate", acme), ask(text=BROKEN), headers=HTMX).content.decode()
    assert "Fix the ones listed under Findings" in page


def test_a_request_in_the_address_is_simulated_at_once(acme: Access, owner: Client) -> None:
    save_draft(acme, text=POLICY)
    asked = {"username": "a", "action": "pub", "topic": "agents/a/card", "qos": "1"}
    assert owner.get(url("policy", acme), asked).context["simulated"].verdict.word == "Allowed"


def test_a_viewer_reads_the_draft_and_can_change_nothing(acme: Access, visitor: Visitor) -> None:
    page = visitor(member(acme.org, Role.VIEWER)).get(url("policy", acme)).content.decode()
    assert "readonly" in page
    assert "Save draft" not in page
    assert "Simulate" not in page


def test_presets_are_shown_and_one_becomes_the_draft(acme: Access, owner: Client) -> None:
    page = owner.get(url("presets", acme)).content.decode()
    assert all(each.title in page for each in PRESETS)
    owner.post(url("preset", acme, "chat-channels"))
    chat = preset("chat-channels")
    assert chat
    assert get_draft(acme).text == chat.text
    assert owner.post(url("preset", acme, "nothing")).status_code == 404


def test_a_draft_that_stands_nowhere_else_is_not_replaced_without_asking(acme: Access, owner: Client) -> None:
    assert owner.get(url("presets", acme)).context["precious"] is False
    save_draft(acme, text=POLICY)
    assert owner.get(url("presets", acme)).context["precious"] is True
    asked = owner.get(url("preset", acme, "blank"))
    assert asked.context["impact"][0].count == "8"
    assert get_draft(acme).text == POLICY


def test_a_preset_replaces_only_the_draft_that_was_looked_at(acme: Access, owner: Client) -> None:
    seen = get_draft(acme).etag
    for page in (url("presets", acme), url("preset", acme, "blank")):
        assert sent(owner.get(page), "etag") == seen
    save_draft(member(acme.org, Role.DEVELOPER), text=POLICY)
    assert owner.post(url("preset", acme, "blank"), {"etag": seen}).status_code == 409
    assert get_draft(acme).text == POLICY
    assert owner.post(url("preset", acme, "blank"), {"etag": get_draft(acme).etag}).status_code == 302


def test_the_review_shows_the_difference_the_tests_and_what_it_touches(acme: Access, owner: Client) -> None:
    save_draft(acme, text=POLICY)
    page = owner.get(url("review", acme))
    assert {row.text for row in page.context["diff"].rows if row.op == "add"} >= {"  - id: own-card"}
    assert page.context["impact"][0].count == "0 → 2"
    assert "Deploy to every node" in page.content.decode()


def test_the_review_says_what_the_change_means_with_an_example(acme: Access, owner: Client) -> None:
    deployed(acme, POLICY)
    save_draft(acme, text=POLICY.replace("  - id: own-card\n    topic: agents/{username}/card\n    qos: 1\n", ""))
    meaning = owner.get(url("review", acme)).context["meaning"]
    assert (meaning.relation, bool(meaning.widened), bool(meaning.narrowed)) == ("narrower", False, True)
    save_draft(acme, text=POLICY + "# a comment\n")
    page = owner.get(url("review", acme))
    assert page.context["meaning"].relation == "equivalent"
    assert "Nobody gains or loses access" in page.content.decode()


def test_a_denial_comes_with_the_smallest_change_that_would_allow_it(acme: Access, owner: Client) -> None:
    page = owner.post(url("simulate", acme), ask(topic="agents/agent-8/card"), headers=HTMX)
    assert page.context["simulated"].verdict.suggestions
    assert "To allow it" in page.content.decode()
    assert "To allow it" not in owner.post(url("simulate", acme), ask(), headers=HTMX).content.decode()


def test_a_policy_for_prototyping_nags_on_the_home_page(acme: Access, owner: Client) -> None:
    home = reverse("platform:home", args=[acme.org_id])
    assert "is for prototyping" not in owner.get(home).content.decode()
    load_preset(acme, "permit-all")
    deploy(acme)
    assert "is for prototyping" in owner.get(home).content.decode()


def test_warnings_are_findings_that_do_not_stop_a_deployment(acme: Access, owner: Client) -> None:
    text = POLICY + "  - id: again\n    topic: agents/{username}/card\n    qos: 1\n"
    assert 'data-level="warning"' in owner.post(url("check", acme), {"text": text}, headers=HTMX).content.decode()
    save_draft(acme, text=text)
    assert "Deploy to every node" in owner.get(url("review", acme)).content.decode()


def test_a_deployment_is_followed_node_by_node(acme: Access, owner: Client) -> None:
    cluster = Cluster.objects.get(name=DEFAULT_CLUSTER)
    Node.objects.create(cluster=cluster, name="edge-1")
    save_draft(acme, text=POLICY)
    form = {"note": "first rules", "etag": get_draft(acme).etag}
    answer = owner.post(url("deploy", acme), form)
    current = current_deployment(acme)
    assert current
    assert (current.version.number, current.note) == (2, "first rules")
    assert answer.headers["Location"] == url("deployment", acme, current.pk)
    page = owner.get(answer.headers["Location"]).content.decode()
    assert "Waiting for 1 node" in page
    assert 'http-equiv="refresh"' in page
    part = owner.get(answer.headers["Location"], headers=HTMX)
    assert (part.status_code, b"<html" in part.content) == (200, False)


def test_polling_stops_when_nothing_more_is_awaited(acme: Access, owner: Client) -> None:
    cluster = Cluster.objects.get(name=DEFAULT_CLUSTER)
    Node.objects.create(cluster=cluster, name="edge-1")
    deployed(acme, POLICY)
    first = current_deployment(acme)
    deployed(acme, POLICY + "# again\n")
    assert first
    assert owner.get(url("deployment", acme, first.pk), headers=HTMX).status_code == 286


def test_a_node_that_is_away_is_not_said_to_enforce(acme: Access, owner: Client) -> None:
    cluster = Cluster.objects.get(name=DEFAULT_CLUSTER)
    here, away = (Node.objects.create(cluster=cluster, name=name) for name in ("edge-1", "edge-2"))
    deployed(acme, POLICY)
    made = current_deployment(acme)
    assert made
    Node.objects.filter(pk=away.pk).update(online=False)
    with org_scope(acme.org_id):
        Target.objects.filter(deployment=made, node=here).update(status=Target.Status.ENFORCING)
        Deployment.objects.filter(pk=made.pk).update(status=Deployment.Status.ENFORCING)
    page = owner.get(url("deployment", acme, made.pk)).content.decode()
    assert "Enforced on 1 of 2" in page
    assert "Enforced on every node" not in page
    Node.objects.filter(pk=away.pk).update(online=True)
    assert owner.get(url("deployment", acme, made.pk), headers=HTMX).status_code == 200, "it is asked again"
    with org_scope(acme.org_id):
        Target.objects.filter(deployment=made).update(status=Target.Status.ENFORCING)
    assert "Enforced on every node" in owner.get(url("deployment", acme, made.pk)).content.decode()


@pytest.mark.parametrize(
    "text",
    [BROKEN, POLICY + "tests:\n  - {name: t, as: {username: a}, do: pub, topic: x, expect: allow}\n"],
)
def test_errors_and_failing_tests_refuse_a_deployment(text: str, acme: Access, owner: Client) -> None:
    save_draft(acme, text=text)
    assert "Deploy to every node" not in owner.get(url("review", acme)).content.decode()
    refused = owner.post(url("deploy", acme), {"note": "kept", "etag": get_draft(acme).etag})
    assert refused.status_code == 422
    assert refused.context["form"]["note"].value() == "kept"
    current = current_deployment(acme)
    assert current
    assert current.version.number == 1


def test_a_draft_that_changed_after_the_review_is_not_deployed(acme: Access, owner: Client) -> None:
    reviewed = get_draft(acme).etag
    save_draft(acme, text=POLICY)
    assert owner.post(url("deploy", acme), {"etag": reviewed}).status_code == 409
    current = current_deployment(acme)
    assert current
    assert current.version.number == 1


def test_what_was_refused_is_shown_anew_and_can_be_deployed_then(acme: Access, owner: Client) -> None:
    reviewed = get_draft(acme).etag
    save_draft(acme, text=POLICY)
    refused = owner.post(url("deploy", acme), {"etag": reviewed, "note": "kept"})
    form = {name: sent(refused, name) for name in ("etag", "deployment", "note")}
    assert form["note"] == "kept"
    assert owner.post(url("deploy", acme), form).status_code == 302
    current = current_deployment(acme)
    assert current
    assert (current.version.number, current.note) == (2, "kept")


def test_nothing_replaces_another_deployment_than_was_shown(acme: Access, owner: Client) -> None:
    deployed(acme, POLICY)
    save_draft(acme, text=POLICY + "# more\n")
    review, back = owner.get(url("review", acme)), owner.get(url("rollback", acme, 1))
    deployed(acme, BROKEN.replace("a/#/b", "a/#"))
    save_draft(acme, text=POLICY + "# more\n")
    late = {"etag": get_draft(acme).etag, "deployment": sent(review, "deployment")}
    refused = owner.post(url("deploy", acme), late)
    assert refused.status_code == 409
    assert "Version 3 was activated by" in refused.content.decode()
    assert owner.post(url("rollback", acme, 1), {"deployment": sent(back, "deployment")}).status_code == 409
    current = current_deployment(acme)
    assert current
    assert current.version.number == 3
    assert owner.post(url("rollback", acme, 1), {"deployment": current.pk}).status_code == 302


def test_versions_are_listed_read_and_rolled_back_to(acme: Access, owner: Client) -> None:
    deployed(acme, POLICY, "two rules")
    assert "two rules" in owner.get(url("versions", acme)).content.decode()
    assert "own-card" in owner.get(url("version", acme, 2)).content.decode()
    asked = owner.get(url("rollback", acme, 1))
    assert asked.context["impact"][0].count == "2 → 0"
    answer = owner.post(url("rollback", acme, 1), {"note": "too wide"})
    current = current_deployment(acme)
    assert current
    assert (current.version.number, current.kind, current.note) == (1, "rollback", "too wide")
    assert answer.headers["Location"] == url("deployment", acme, current.pk)
    assert owner.get(url("rollback", acme, 1)).status_code == 409
    assert owner.post(url("rollback", acme, 1)).status_code == 409


def test_an_earlier_version_opens_in_the_editor_unsaved(acme: Access, owner: Client) -> None:
    deployed(acme, POLICY)
    before = get_draft(acme).text
    page = owner.get(url("policy", acme), {"version": "1"})
    assert page.context["text"] != before
    assert "not saved yet" in page.content.decode()
    assert get_draft(acme).text == before
    assert owner.get(url("policy", acme), {"version": "99"}).status_code == 404


@pytest.mark.parametrize("number", ["²", "٣", "x", "-1", "9" * 40])
def test_a_number_that_is_none_in_the_address_breaks_nothing(number: str, acme: Access, owner: Client) -> None:
    assert owner.get(url("versions", acme), {"before": number}).status_code == 200
    assert owner.get(url("policy", acme), {"version": number}).status_code in {200, 404}


def test_everybody_gets_the_schema_that_the_package_publishes() -> None:
    answer = Client().get("/policy.schema.json")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/schema+json")
    assert answer.content.decode() == schema_text()
    assert json.loads(answer.content)["properties"]["version"] == {"enum": ["3", 3]}


@pytest.mark.parametrize("name", ["check", "simulate", "save"])
def test_a_text_that_is_none_is_refused_beside_the_editor_and_takes_no_part_of_the_page_away(
    name: str, acme: Access, owner: Client
) -> None:
    answer = owner.post(url(name, acme), {"text": "rules: []\0", "topic": "a"}, headers=HTMX)
    assert "contains NUL" in answer.content.decode()
    assert (answer.headers["HX-Retarget"], answer.headers["HX-Reswap"]) == ("#draft-state", "outerHTML")
