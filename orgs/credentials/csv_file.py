"""CSV file of clients to issue credentials for: parsed and validated as a whole before any is issued.

Columns, in any order: ``username`` (empty: a new opaque one), ``ttl`` (seconds), ``static`` (yes or no), ``note``, and
``claim.NAME`` for each claim. Cells end with a comma, or as spreadsheets of many countries write them with a semicolon
or a tab, whichever stands in the header; a byte order mark is left out. Pure: no database.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass

from cloudsignal.errors import Detail, DomainError, Invalid, quoted
from cloudsignal.wire.credential import ClaimValue
from orgs.credentials.claims import clean_claims
from orgs.credentials.issuing import LOCAL_NAME, TTL_DEFAULT, check_ttl

ROWS_MAX = 10_000
ERRORS_MAX = 50
NOTE_MAX = 200
COLUMNS = ("username", "ttl", "static", "note")
CLAIM = "claim."
DELIMITERS = (",", ";", "\t")
TRUE = frozenset({"1", "yes", "true", "on"})
FALSE = frozenset({"", "0", "no", "false", "off"})


@dataclass(frozen=True, slots=True)
class Entry:
    """A credential to issue. ``line`` is its line in the file, from 1."""

    line: int
    username: str
    ttl: int
    static: bool
    note: str
    claims: Mapping[str, ClaimValue]


def read_roster(text: str) -> tuple[Entry, ...]:
    """Parse a CSV file with a header line. Raises :class:`Invalid` naming every wrong line (the first 50)."""
    text = text.removeprefix("\ufeff")
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True))
    except csv.Error as error:
        raise Invalid("bad_csv", f"This is not a CSV file: {error}.", field="file") from None
    header = [name.strip() for name in rows[0]] if rows else []
    _check_header(header)
    body = [(number, row) for number, row in enumerate(rows[1:], start=2) if any(cell.strip() for cell in row)]
    if not body:
        raise Invalid("empty_csv", "The file has no line below its header.", field="file")
    if len(body) > ROWS_MAX:
        raise Invalid("too_many_rows", f"A file has at most {ROWS_MAX} lines; split it.", field="file")
    entries: list[Entry] = []
    problems: list[Detail] = []
    seen: dict[str, int] = {}
    for number, row in body:
        try:
            entry = _entry(number, header, row)
            if entry.username and (first := seen.setdefault(entry.username, number)) != number:
                raise Invalid("twice", f"{entry.username} is already on line {first}.", field="username")
            entries.append(entry)
        except DomainError as error:
            problems.append(Detail(f"line {number}: {error.message}", error.field or "", number))
    if problems:
        count = f"{len(problems)} line{'' if len(problems) == 1 else 's'}"
        raise Invalid(
            "bad_rows", f"{count} cannot be used; nothing was issued.", field="file", details=problems[:ERRORS_MAX]
        )
    return tuple(entries)


def _delimiter(text: str) -> str:
    """Detect the delimiter from the header line; no column name contains a delimiter."""
    header = re.split(r"[\r\n]", text, maxsplit=1)[0]
    return max(DELIMITERS, key=header.count)


def _check_header(header: list[str]) -> None:
    for name in header:
        if name not in COLUMNS and not (name.startswith(CLAIM) and len(name) > len(CLAIM)):
            known = ", ".join((*COLUMNS, f"{CLAIM}NAME"))
            raise Invalid("bad_column", f"There is no column {quoted(name[:40])}; known are {known}.", field="file")
    if not header or len(set(header)) != len(header):
        raise Invalid("bad_header", "The first line names the columns, each once.", field="file")


def _entry(line: int, header: list[str], row: list[str]) -> Entry:
    if len(row) != len(header):
        raise Invalid("bad_row", f"it has {len(row)} cells, the header has {len(header)}.")
    cells = {name: cell.strip() for name, cell in zip(header, row, strict=True)}
    username, static = cells.get("username", ""), _flag(cells.get("static", ""))
    if username and not LOCAL_NAME.match(username):
        raise Invalid("bad_username", "a name has up to 63 of a-z, 0-9, - and _.", field="username")
    if static and not username:
        raise Invalid("username_missing", "a static credential needs a name.", field="username")
    note = cells.get("note", "")
    if len(note) > NOTE_MAX:
        raise Invalid("note_too_long", f"a note has at most {NOTE_MAX} characters.", field="note")
    claims = {name[len(CLAIM) :]: cell for name, cell in cells.items() if name.startswith(CLAIM) and cell}
    return Entry(line, username, _ttl(cells.get("ttl", "")), static, note, clean_claims(claims) if claims else {})


def _ttl(text: str) -> int:
    if not text:
        return TTL_DEFAULT
    if not (text.isascii() and text.isdigit() and len(text) < 9):
        raise Invalid("bad_ttl", "the time to live is a whole number of seconds.", field="ttl")
    return check_ttl(int(text))


def _flag(text: str) -> bool:
    if text.lower() not in TRUE | FALSE:
        raise Invalid("bad_flag", "static is yes or no.", field="static")
    return text.lower() in TRUE
