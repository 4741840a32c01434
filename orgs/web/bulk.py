"""Page: credentials for many clients at once, from a CSV file. The result is in the answer and nowhere else."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import render

from cloudsignal.errors import DomainError
from cloudsignal.limits import take
from orgs.access import Access
from orgs.forms_bulk import EXAMPLE, BulkForm
from orgs.permissions import Permission
from orgs.services.minting import Minted, mint
from orgs.services.roster import COLUMNS, ROWS_MAX, read_roster
from orgs.web.gate import org_page

PART = 4_000
"""Credentials in one file: a link that carries its file must stay below what browsers take (2 MB)."""
SHOWN = 20


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the result. ``href`` is the file itself (RFC 2397), so that no secret is stored anywhere."""

    name: str
    count: int
    href: str


@org_page(Permission.CREDENTIALS_MANAGE, methods=("GET", "POST"), one_transaction=False)
def bulk(request: HttpRequest, access: Access) -> HttpResponseBase:
    """Read and check the whole file; mint only when every line is right."""
    form = BulkForm(request.POST or None, request.FILES or None) if request.method == "POST" else BulkForm()
    if request.method == "POST" and not form.is_bound:
        form = BulkForm({})
    if form.is_bound and form.is_valid():
        text = form.roster
        try:
            entries = read_roster(text)
            take("api", f"user {access.user.pk}" if access.user else access.actor)
            minted = sorted(mint(access, entries), key=lambda one: one.line)
        except DomainError as error:
            form.keep(text)
            form.refuse(error)
        else:
            context = {
                "minted": minted[:SHOWN],
                "count": len(minted),
                "more": max(len(minted) - SHOWN, 0),
                "static": sum(one.issued.static for one in minted),
                "parts": _parts(access, minted),
            }
            return render(request, "orgs/bulk_done.html", context, status=201)
    context = {"form": form, "columns": COLUMNS, "rows_max": ROWS_MAX, "example": EXAMPLE}
    return render(request, "orgs/bulk.html", context, status=422 if form.errors else 200)


def _parts(access: Access, minted: Sequence[Minted]) -> list[Part]:
    pieces = [minted[start : start + PART] for start in range(0, len(minted), PART)]
    return [
        Part(
            f"credentials-{access.org_id}{f'-{number}' if len(pieces) > 1 else ''}.csv",
            len(piece),
            "data:text/csv;charset=utf-8," + quote(_csv(piece), safe="@_-,:+"),
        )
        for number, piece in enumerate(pieces, start=1)
    ]


def _csv(minted: Sequence[Minted]) -> str:
    """Columns: line of the file sent, MQTT username and password, token id, expiry (ISO 8601 UTC, empty for never)."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(["line", "username", "password", "token_id", "expires_at"])
    for one in minted:
        issued = one.issued
        ends = issued.expires_at.isoformat() if issued.expires_at else ""
        writer.writerow([one.line, issued.username, issued.password, issued.token_id, ends])
    return out.getvalue()
