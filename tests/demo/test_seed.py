"""The demo's seed on a system where an earlier one was cut short."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from cloudsignal.demo.cast import SAMPLES
from cloudsignal.supervisor.part import PROJECT
from tests.support.process import clean_environment
from tests.support.system import Stack

pytestmark = [pytest.mark.stack]

BEGUN = """
import sys
from orgs.models import User
from orgs.organizations.lifecycle import create_organization
create_organization(User.objects.create_user(sys.argv[1]), name=sys.argv[2])
"""
IN_FORCE = """
import json, sys
from acl.access import current_deployment
from orgs.access.grants import access_org, list_organizations
from orgs.models import User
found = {}
for email in sys.argv[1:]:
    owner = User.objects.get(email=email)
    for entry in list_organizations(owner):
        found[entry.org.name] = current_deployment(access_org(owner, entry.org.pk)).version.number
print(json.dumps(found))
"""


def test_an_organization_without_its_policy_gets_it_at_the_next_start_and_once(stack: Stack) -> None:
    owners = [sample.people[0][0] for sample in SAMPLES]
    stack.django(BEGUN, owners[0], SAMPLES[0].name)
    for _ in range(2):
        command = [sys.executable, "-m", "cloudsignal.demo.seed", "--data", str(stack.data), "--web", stack.url]
        command += ["--host", "localhost", "--port", str(stack.mqtts_port), "--nodes", ",".join(stack.nodes)]
        environment = clean_environment() | stack.django_environment()
        done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found = json.loads(stack.django(IN_FORCE, *owners).strip().splitlines()[-1])
        assert found == {sample.name: 2 for sample in SAMPLES}
