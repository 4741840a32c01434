"""A world with two organizations. Django is set up after this file loads, so it is imported inside the fixtures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_django.fixtures import Settings

    from tests.support.calling import Caller, World
    from tests.support.issuer import Issuer


@pytest.fixture
def acme(transactional_db: None) -> World:
    """An organization."""
    from tests.support.calling import World
    from tests.support.world import organization

    return World(organization("Acme"))


@pytest.fixture
def rival(transactional_db: None) -> World:
    """Another organization, to be kept apart."""
    from tests.support.calling import World
    from tests.support.world import organization

    return World(organization("Rival"))


@pytest.fixture
def nobody() -> Caller:
    """A caller without a key or a session."""
    from tests.support.calling import Caller

    return Caller()


@pytest.fixture
def operator(transactional_db: None) -> Caller:
    """Platform staff."""
    from tests.support.calling import Caller
    from tests.support.world import person

    return Caller(user=person(operator=True))


@pytest.fixture
def limit(settings: Settings) -> Callable[[str, str], None]:
    """Change one rate limit for the length of a test."""

    def change(name: str, rate: str) -> None:
        settings.RATE_LIMITS = {**settings.RATE_LIMITS, name: rate}

    return change


@pytest.fixture
def issuer(settings: Settings) -> Iterator[Issuer]:
    """An OpenID Connect issuer on loopback, which the settings allow for this test."""
    from orgs.providers import jwks
    from tests.support.issuer import issuing

    settings.PROVIDER_NETWORKS = "127.0.0.0/8"
    jwks.forget()
    with issuing() as running:
        yield running
    jwks.forget()
