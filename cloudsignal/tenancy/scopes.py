"""Database scopes: select, for a block of code, whose rows row-level security shows.

Row-level security reads four settings of the transaction. A scope is a transaction (or a savepoint inside one) with
all four set, so that an inner scope narrows as well as widens; leaving it restores the outer one. Outside every
scope the application role sees no tenant row at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.db import connection, transaction

SETTINGS = ("cloudsignal.org", "cloudsignal.user", "cloudsignal.api_key", "cloudsignal.platform")


@dataclass(frozen=True, slots=True)
class Facts:
    """The values of the scope's settings: at most one is set; an empty string means unset."""

    org: str = ""
    user: str = ""
    api_key: str = ""
    platform: str = ""

    def values(self) -> list[str]:
        """In the order of :data:`SETTINGS`."""
        return [self.org, self.user, self.api_key, self.platform]


@contextmanager
def org_scope(org_id: str) -> Iterator[None]:
    """Scope of one organization's rows, for requests and tasks on behalf of a tenant."""
    with _scope(Facts(org=org_id)):
        yield


@contextmanager
def user_scope(user_id: int) -> Iterator[None]:
    """Read-only scope of one person's memberships and their organizations."""
    with _scope(Facts(user=str(user_id))):
        yield


@contextmanager
def api_key_scope(digest: str) -> Iterator[None]:
    """Read-only scope of the API key with this SHA-256, to find its organization."""
    with _scope(Facts(api_key=digest)):
        yield


@contextmanager
def platform_scope() -> Iterator[None]:
    """Scope of every organization's rows, for workers and operators."""
    with _scope(Facts(platform="on")):
        yield


@contextmanager
def _scope(facts: Facts) -> Iterator[None]:
    nested = connection.in_atomic_block
    with transaction.atomic():
        outer = _exchange(facts.values())
        yield
        # On an exception the savepoint's rollback restores the settings; at the end of the outermost transaction
        # PostgreSQL forgets them. Only leaving a nested scope in good order needs this.
        if nested:
            _exchange(outer)


def _exchange(values: list[str]) -> list[str]:
    """Set the settings and return what they were. PostgreSQL evaluates a select list from left to right."""
    reads = ", ".join(f"current_setting('{name}', true)" for name in SETTINGS)
    writes = ", ".join(f"set_config('{name}', %s, true)" for name in SETTINGS)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {reads}, {writes}", values)
        row = cursor.fetchone()
    return [value or "" for value in row[: len(SETTINGS)]]
