"""A victim and a rival. Django is set up after this file loads, so it is imported inside the fixtures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.calling import World


@pytest.fixture
def acme(transactional_db: None) -> World:
    """The victim."""
    from tests.support.calling import World
    from tests.support.world import organization

    return World(organization("Acme"))


@pytest.fixture
def rival(transactional_db: None) -> World:
    """Who wants in."""
    from tests.support.calling import World
    from tests.support.world import organization

    return World(organization("Rival"))
