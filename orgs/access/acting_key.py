"""The API key that acts in a request: still good when what it makes is stored."""

from __future__ import annotations

from django.db import connection

from cloudsignal.errors import Unauthenticated
from orgs.access.grants import Access

HOLD = "SELECT revoked_at FROM orgs_apikey WHERE org_id = %s AND id = %s FOR KEY SHARE"
"""Calls of one key go on beside each other; revoking it (FOR UPDATE) waits for them, and finds what they made."""


def hold_acting_key(access: Access) -> None:
    """Keep the key that acts from being revoked until the transaction ends.

    Revoking a key ends all that it has made: a request that was let in before must not add to that afterwards. Raises
    :class:`Unauthenticated` when the key was revoked meanwhile. Nothing for persons.
    """
    if access.key is None:
        return
    with connection.cursor() as cursor:
        cursor.execute(HOLD, [access.org_id, access.key.pk])
        row = cursor.fetchone()
    if row is None or row[0] is not None:
        raise Unauthenticated("unauthorized", "The API key is revoked.")
