"""Getting one row of an organization, or 404."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from django.db import models

from cloudsignal.errors import NotFound

M = TypeVar("M", bound=models.Model)


def get_or_404(
    model: type[M],
    org_id: str,
    what: str,
    *,
    code: str = "not_found",
    lock: bool = False,
    related: Sequence[str] = (),
    **named: Any,
) -> M:
    """Get one row of an organization by the lookups ``named``; raises :class:`NotFound` that names it ``what``.

    With ``lock`` it stays locked until the end of the transaction; rows of ``related`` are read with it and not locked.
    Needs the organization's scope: a foreign row is not found, whoever asks for it.
    """
    rows = model._default_manager.filter(org_id=org_id, **named)
    if related:
        rows = rows.select_related(*related)
    if lock:
        rows = rows.select_for_update(of=("self",))
    found = rows.first()
    if found is None:
        raise NotFound(what, code=code)
    return found
