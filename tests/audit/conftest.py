"""Fixtures of the audit's tests. Django is set up after this file is read, so what needs it is imported where used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from redis import Redis

from tests.support.databases import Databases

if TYPE_CHECKING:
    from audit.ingest.consumer import Ingest
    from orgs.access.grants import Access
    from orgs.models import Organization


@pytest.fixture
def redis(databases: Databases) -> Redis:
    """The session's Valkey, emptied before each test that uses the database."""
    return databases.redis()


@pytest.fixture
def ingest(redis: Redis) -> Ingest:
    """A consumer in this process; ``round(block=0)`` does what there is to do."""
    from audit.ingest.consumer import Ingest
    from audit.management.commands.ingest import AclNodes

    return Ingest(redis, AclNodes(), name="test", claim_idle=0.01)


@pytest.fixture
def org(db: None) -> Organization:
    """An organization."""
    from tests.support.audit_events import make_org

    return make_org()


@pytest.fixture
def access(org: Organization) -> Access:
    """The owner's access to it."""
    from tests.support.audit_events import access_to

    return access_to(org)
