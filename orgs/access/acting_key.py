"""Locking the API key of a request, so that it is not revoked before its changes are stored."""

from __future__ import annotations

from django.db import connection

from cloudsignal.errors import Unauthenticated
from orgs.access.grants import Access

HOLD = "SELECT revoked_at FROM orgs_apikey WHERE org_id = %s AND id = %s FOR KEY SHARE"
"""Requests of one key run concurrently; revoking the key (FOR UPDATE) waits for them and finds what they created."""


def hold_acting_key(access: Access) -> None:
    """Lock the acting API key against revocation until the transaction ends.

    Revoking a key revokes all that it has created; a request admitted earlier must not add to that afterwards. Raises
    :class:`Unauthenticated` when the key was revoked meanwhile. Nothing for persons.
    """
    if access.key is None:
        return
    with connection.cursor() as cursor:
        cursor.execute(HOLD, [access.org_id, access.key.pk])
        row = cursor.fetchone()
    if row is None or row[0] is not None:
        raise Unauthenticated("unauthorized", "The API key is revoked.")
