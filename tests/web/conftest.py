"""Visitors of the pages. Django is set up after this file is read, so its parts are imported where they are used."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from django.test import Client

    from orgs.access.grants import Access
    from orgs.models import User

    Visitor = Callable[[Access | User], Client]


@pytest.fixture
def acme(db: None) -> Access:
    """An organization, seen by its owner."""
    from tests.support.world import organization

    return organization("Acme")


@pytest.fixture
def visitor() -> Visitor:
    """A browser that a person, or the person of an access, has just signed in with."""
    from django.test import Client

    from tests.support.calling import authenticate

    def sign_in(who: Access | User) -> Client:
        user = getattr(who, "user", who)
        client = Client()
        client.force_login(user)
        authenticate(client, user)
        return client

    return sign_in


@pytest.fixture
def owner(acme: Access, visitor: Visitor) -> Client:
    """The owner of ``acme``, signed in."""
    return visitor(acme)
