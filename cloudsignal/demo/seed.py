"""Seed the demo: people, two organizations with an active policy, and a guide. Safe to run at every start.

What exists is left alone: somebody who played with a policy finds it as they left it. Only the visitor's MQTT
credential is issued anew, because it lives for a day at most.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import django

from cloudsignal.demo.cast import OPERATOR, SAMPLES, SampleOrganization
from cloudsignal.supervisor.secret import write_private

if TYPE_CHECKING:
    from orgs.access.grants import Access
    from orgs.credentials.issuing import Issued
    from orgs.models import User

VISITOR_TTL = 86_400
RENEW_SECONDS = 43_200.0
"""How often the guide gets new credentials while the demo runs."""
WAIT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Places:
    """Files and addresses of this run, passed by the supervisor."""

    data: Path
    web: str
    host: str
    port: int
    ca: str
    nodes: tuple[str, ...]


def main(arguments: list[str] | None = None) -> int:
    """Seed and write the guide."""
    places = read_places("Make the demo's organizations.", arguments)
    django.setup()
    passwords = Passwords(places.data / "secrets" / "demo.json")
    _until(lambda: set(places.nodes) <= _online(), "the edges have registered themselves")
    _person(OPERATOR, passwords, operator=True)
    for sample in SAMPLES:
        _organization(sample, passwords)
    write_guide(places)
    return 0


def read_places(description: str, arguments: list[str] | None) -> Places:
    """Parse the command-line arguments that seed and fleet share."""
    parser = argparse.ArgumentParser(description=description)
    for name in ("data", "web", "host", "port", "nodes"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--ca", default="")
    given = parser.parse_args(arguments)
    nodes = tuple(name for name in given.nodes.split(",") if name)
    return Places(Path(given.data), given.web, given.host, int(given.port), given.ca, nodes)


def write_guide(places: Places) -> Path:
    """Issue each visitor a credential and write the guide with it; those of earlier guides live on to their end.

    At every start, and again every :data:`RENEW_SECONDS` while the demo runs: a credential lives for a day at most.
    """
    passwords = Passwords(places.data / "secrets" / "demo.json")
    visitors = [(sample, _visitor(sample)) for sample in SAMPLES]
    guide = guide_file(places.data)
    guide.parent.mkdir(mode=0o700, exist_ok=True)
    write_private(guide, _guide(places, passwords, visitors))
    return guide


def guide_file(data: Path) -> Path:
    """The file of the guide."""
    return data / "demo" / "guide.txt"


class Passwords:
    """The demo people's passwords: made once, kept with mode 0600."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}

    def of(self, email: str) -> str:
        """The password of ``email``."""
        if email not in self._known:
            self._known[email] = f"{secrets.choice(WORDS)}-{secrets.choice(WORDS)}-{secrets.randbelow(9000) + 1000}"
            write_private(self._path, json.dumps(self._known, indent=2))
        return self._known[email]


WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "islet", "juniper", "kelp", "larch")


def _person(email: str, passwords: Passwords, *, operator: bool = False) -> User:
    from allauth.account.models import EmailAddress

    from orgs.models import User

    found = User.objects.filter(email=email).first()
    found = found or User.objects.create_user(email, passwords.of(email), is_operator=operator)
    # A second factor can be added to confirmed addresses only.
    EmailAddress.objects.update_or_create(user=found, email=email, defaults={"verified": True, "primary": True})
    return found


def _organization(sample: SampleOrganization, passwords: Passwords) -> None:
    """The organization with its people and policy."""
    from acl.access import list_versions
    from acl.services.deployments import deploy
    from acl.services.drafts import load_preset
    from orgs.access.grants import access_org, list_organizations
    from orgs.organizations.lifecycle import create_organization

    owner = _person(sample.people[0][0], passwords)
    mine = [entry.org for entry in list_organizations(owner) if entry.org.name == sample.name]
    org = mine[0] if mine else create_organization(owner, name=sample.name)
    access = access_org(owner, org.pk)
    if len(list_versions(access, limit=2)) == 1:  # new, or left so by a start that was cut short
        load_preset(access, sample.preset)
        deploy(access, note=f"preset {sample.preset}")
        _until(lambda: _enforced(access), f"the edges enforce the policy of {sample.name}")
    for email, role in sample.people[1:]:
        _join(access, _person(email, passwords), role)


def _visitor(sample: SampleOrganization) -> Issued:
    """A fresh credential for whoever tries the commands of the guide."""
    from orgs.access.grants import access_org, list_organizations
    from orgs.credentials.issuing import issue_credential
    from orgs.models import User

    owner = User.objects.get(email=sample.people[0][0])
    org = next(entry.org for entry in list_organizations(owner) if entry.org.name == sample.name)
    return issue_credential(
        access_org(owner, org.pk), username=sample.visitor, ttl=VISITOR_TTL, note="for trying things"
    )


def _join(access: Access, user: User, role: str) -> None:
    """Make ``user`` a member, once."""
    from audit import kinds
    from audit.services.record import record
    from cloudsignal.tenancy.scopes import org_scope
    from orgs.models import Membership

    with org_scope(access.org_id):
        _, new = Membership.objects.get_or_create(org=access.org, user=user, defaults={"role": role})
        if new:
            record(access, kinds.MEMBER_ADDED, target=f"user:{user.email}", after={"role": role})


def _online() -> set[str]:
    from acl.models import Node

    return set(Node.objects.filter(online=True).values_list("name", flat=True))


def _enforced(access: Access) -> bool:
    from acl.access import current_deployment
    from acl.models import Deployment

    current = current_deployment(access)
    return current is not None and current.status != Deployment.Status.PENDING


def _until(question: Callable[[], bool], what: str) -> None:
    """Wait until a condition is true; exits with a message after a timeout (the supervisor tries again)."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not question():
        if time.monotonic() > deadline:
            sys.exit(f"after {WAIT_SECONDS:.0f} s it is still not so that {what}")
        time.sleep(0.2)


def _guide(places: Places, passwords: Passwords, visitors: list[tuple[SampleOrganization, Issued]]) -> str:
    """The text of the guide: sign-ins, and commands that work as printed."""
    people = [(OPERATOR, "operator")]
    people += [(email, f"{role} of {sample.name}") for sample, _ in visitors for email, role in sample.people]
    lines = ["", "Sign in at " + places.web]
    lines += [f"  {email:<28} {passwords.of(email):<22} {what}" for email, what in people]
    ca = f" --cafile {places.ca}" if places.ca else ""
    for sample, visitor in visitors:
        common = f"-V mqttv5 -h {places.host} -p {places.port}{ca} -u {visitor.username} -P {visitor.password}"
        lines += [
            "",
            f"{sample.name}: subscribe, then publish what is not allowed, and find the denial under Audit",
            f"  mosquitto_sub {common} -i visitor-sub -t '{sample.listen}' -v",
            f"  mosquitto_pub {common} -i visitor-pub -t '{sample.refused}' -m hello -q 1",
        ]
    ends = min(visitor.expires_at for _, visitor in visitors if visitor.expires_at)
    lines += [
        "",
        f"These credentials expire at {ends:%Y-%m-%d %H:%M} UTC. The demo writes new ones twice a day to",
        f"  {guide_file(places.data)}",
    ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
