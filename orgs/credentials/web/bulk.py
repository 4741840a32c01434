"""Page: credentials for many clients at once, from a CSV file. The result is in the answer and nowhere else.

The answer is sent piece by piece while the work goes on: a step of the progress bar and a file for every batch, then an
end that says what was made. It needs no script, holds no secret on the server, and two of them do not meet. When it
breaks off, the files above the break are good, and what was not shown is revoked (:mod:`orgs.credentials.bulk`).
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string

from cloudsignal.errors import DomainError
from cloudsignal.limits import take
from orgs.access.grants import Access
from orgs.access.web.gate import org_page
from orgs.credentials.bulk import Batch, IssuedLine, Skipped, issue_in_batches
from orgs.credentials.csv_file import COLUMNS, ROWS_MAX, Entry, read_roster
from orgs.credentials.forms.bulk import EXAMPLE, BulkForm
from orgs.permissions import Permission

logger = logging.getLogger(__name__)

HERE = "<!-- the work stands here -->"
"""Where the template is cut: what comes before is sent first, what comes after last."""


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the result. ``href`` is the file itself (RFC 2397), so that no secret is stored anywhere."""

    name: str
    first: int
    last: int
    count: int
    href: str


@org_page(Permission.CREDENTIALS_MANAGE, methods=("GET", "POST"), one_transaction=False)
def bulk(request: HttpRequest, access: Access) -> HttpResponseBase:
    """Read and check the whole file; issue only when every line is right."""
    form = BulkForm(request.POST or None, request.FILES or None) if request.method == "POST" else BulkForm()
    if request.method == "POST" and not form.is_bound:
        form = BulkForm({})
    if form.is_bound and form.is_valid():
        text = form.roster
        try:
            entries = read_roster(text)
            take("api", f"user {access.user.pk}" if access.user else access.actor)
        except DomainError as error:
            form.keep(text)
            form.refuse(error)
        else:
            return _streamed(request, access, entries)
    context = {"form": form, "columns": COLUMNS, "rows_max": ROWS_MAX, "example": EXAMPLE}
    return render(request, "orgs/bulk.html", context, status=422 if form.errors else 200)


def _streamed(request: HttpRequest, access: Access, entries: Sequence[Entry]) -> HttpResponseBase:
    """The page, cut where the work stands. A proxy must not keep it back until it is whole."""
    context = {"total": len(entries), "here": HERE, "file": f"credentials-{access.org_id}.csv"}
    before, _, after = render_to_string("orgs/bulk_run.html", context, request).partition(HERE)
    pieces = _pieces(access, entries, before, after)
    return StreamingHttpResponse(pieces, headers={"X-Accel-Buffering": "no"})


def _pieces(access: Access, entries: Sequence[Entry], before: str, after: str) -> Iterator[str]:
    count = static = number = 0
    skipped = list[Skipped]()
    yield before + render_to_string("orgs/bulk_run.html#step", {"done": 0, "total": len(entries)})
    try:
        for number, batch in enumerate(issue_in_batches(access, entries), start=1):
            count += len(batch.issued)
            static += sum(one.issued.static for one in batch.issued)
            skipped += batch.skipped
            context = {"done": batch.done, "total": batch.total, "part": _part(access, batch, number)}
            yield render_to_string("orgs/bulk_run.html#step", context)
    except DomainError as error:
        yield _end(access, count, static, skipped, parts=number, problem=error.message)
    except Exception:
        logger.exception("issuing from a file failed")
        text = "Something went wrong on our side. The files above are valid; no other line was issued."
        yield _end(access, count, static, skipped, parts=number, problem=text)
    else:
        yield _end(access, count, static, skipped, parts=number)
    yield after


def _end(access: Access, count: int, static: int, skipped: Sequence[Skipped], *, parts: int, problem: str = "") -> str:
    context = {
        "org_id": access.org_id, "count": count, "static": static, "skipped": skipped, "parts": parts,
        "problem": problem,
    }  # fmt: skip
    return render_to_string("orgs/bulk_run.html#end", context)


def _part(access: Access, batch: Batch, number: int) -> Part | None:
    if not batch.issued:
        return None
    return Part(
        f"credentials-{access.org_id}-{number}.csv",
        batch.issued[0].line,
        batch.issued[-1].line,
        len(batch.issued),
        "data:text/csv;charset=utf-8," + quote(_csv(batch.issued), safe="@_-,:+"),
    )


def _csv(lines: Sequence[IssuedLine]) -> str:
    """Columns: line of the file sent, MQTT username and password, token id, expiry (ISO 8601 UTC, empty for never)."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(["line", "username", "password", "token_id", "expires_at"])
    for one in lines:
        issued = one.issued
        ends = issued.expires_at.isoformat() if issued.expires_at else ""
        writer.writerow([one.line, issued.username, issued.password, issued.token_id, ends])
    return out.getvalue()
