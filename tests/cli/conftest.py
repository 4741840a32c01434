"""An organization on the running system, and the program signed in to it by keys and by people."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.cli import Done, process

if TYPE_CHECKING:
    from tests.support.system import Stack

PASSWORD = "correct horse battery"
SEED = """
import json
from orgs.access.grants import access_org
from orgs.models import Membership, User
from orgs.api_keys.keys import create_api_key, create_personal_key
from orgs.credentials.issuing import issue_credential
from orgs.organizations.lifecycle import create_organization
from cloudsignal.tenancy.scopes import org_scope

ada = User.objects.create_user("grace@example.com", "correct horse battery")
org = access_org(ada, create_organization(ada, name="Tidewater").pk)
other = access_org(ada, create_organization(ada, name="Upriver").pk)
people = {"owner": org}
for role in ("developer", "auditor", "viewer"):
    person = User.objects.create_user(f"{role}@tidewater.example", "correct horse battery")
    with org_scope(org.org_id):
        Membership.objects.create(org=org.org, user=person, role=role)
    people[role] = access_org(person, org.org_id)
print(json.dumps({
    "org": org.org_id, "other": other.org_id,
    "keys": {role: create_personal_key(access, machine="test").secret for role, access in people.items()}
    | {"sk": create_api_key(org, kind="sk", name="CI").secret, "pk": create_api_key(org, kind="pk", name="web").secret},
    "foreign_token": issue_credential(other, username="foreign").token_id,
}))
"""


@dataclass
class Place:
    """The organization, and the program at work in it."""

    stack: Stack
    org: str
    other: str
    keys: dict[str, str]
    foreign_token: str
    config: Path = field(default_factory=Path)

    def run(self, *arguments: str, key: str = "sk", stdin: str = "", **environment: str) -> Done:
        """Run the program with the key of a role."""
        own = {"CLOUDSIGNAL_URL": self.stack.url, "CLOUDSIGNAL_API_KEY": self.keys.get(key, key)}
        return process(*arguments, stdin=stdin, environment=own | environment)

    def json(self, *arguments: str, key: str = "sk", code: int = 0) -> Any:
        """The same with ``--json``; fails unless the exit code is ``code``."""
        done = self.run(*arguments, "--json", key=key)
        assert done.code == code, done
        return json.loads(done.output)


@pytest.fixture(scope="session")
def place(stack: Stack) -> Place:
    """Seeded once."""
    return Place(stack, **json.loads(stack.django(SEED).strip().splitlines()[-1]))
