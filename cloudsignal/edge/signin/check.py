"""Verify a credential in constant time: one username and password against one sealed record."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass

from audit.kinds import AuthReason
from cloudsignal.edge.session.mountpoint import ORGANIZATION
from cloudsignal.wire.credential import Credential, Origin, Secret, secret_mac, secret_origin

_LOCAL = re.compile(r"[^\x00-\x1f\x7f/+#]{1,128}")

SAME_WORK = 4
"""Secrets compared on every sign-in, at least, so that a missing record costs as much as a full one."""

METRICS_APPENDED = (
    "the username goes on after the organization with '?...', as AWS's client libraries do by themselves; "
    "turn their metrics off"
)
"""Text of the refusal, and of its audit event, for a username with ``?...`` appended."""

_NOBODY = Secret(token_id="", mac=b"\0" * 32, expires_at=0, revoked=True)


@dataclass(frozen=True, slots=True)
class Name:
    """A username as presented: ``local@org``."""

    local: str
    org: str


@dataclass(frozen=True, slots=True)
class Checked:
    """Result of a check: the secret that matched, or the reason of the refusal."""

    secret: Secret | None
    reason: AuthReason | None


def parse_name(username: str | None) -> Name | None:
    """Split ``local@org``; ``None`` when the form is another."""
    local, _, org = (username or "").rpartition("@")
    if not ORGANIZATION.fullmatch(org) or not _LOCAL.fullmatch(local):
        return None
    return Name(local, org)


def without_metrics(username: str | None) -> Name | None:
    """The name before a ``?``, if that is what makes ``username`` malformed: AWS's libraries append ``?SDK=...``."""
    head, mark, _ = (username or "").partition("?")
    return parse_name(head) if mark and parse_name(username) is None else None


def check(record: Credential | None, *, pepper: bytes, name: Name, password: bytes | None, now: float) -> Checked:
    """Check ``password`` against the record found for ``name`` (``None``: there is none).

    Every refusal compares every listed secret, found or not; a secret that signs in ends the search. One that is right
    but ended says so (``expired``, ``revoked``); only somebody who holds it can learn that. ``now`` is in seconds
    since the epoch.
    """
    try:
        secret = (password or b"").decode()
    except UnicodeDecodeError:
        secret = ""
    listed = record.secrets if record is not None else ()
    padding = (_NOBODY,) * (SAME_WORK - len(listed))
    match: Secret | None = None
    for one in (*listed, *padding):
        mac = secret_mac(pepper, org=name.org, username=name.local, secret=secret, expires_at=one.expires_at)
        if hmac.compare_digest(mac, one.mac) and one is not _NOBODY:
            match = one
            if _signs_in(one, record, now):
                return Checked(one, None)
    origin = secret_origin(pepper, name.org, secret)
    if match is None:
        if origin is Origin.OTHER_ORG:
            return Checked(None, AuthReason.WRONG_ORG)
        return Checked(None, AuthReason.UNKNOWN if record is None else AuthReason.BAD_SECRET)
    if match.revoked or (record is not None and record.revoked):
        return Checked(None, AuthReason.REVOKED)
    return Checked(None, AuthReason.EXPIRED if 0 < match.ends_at <= now else AuthReason.RETIRED)


def _signs_in(secret: Secret, record: Credential | None, now: float) -> bool:
    revoked = secret.revoked or (record is not None and record.revoked)
    return not (revoked or secret.retired or 0 < secret.ends_at <= now)


def session_end(record: Credential, token_id: str, *, now: float) -> tuple[int, AuthReason | None]:
    """Until when a session that signed in with ``token_id`` may live, and why not at all.

    A refresh adds a secret to the identity and thereby extends the session; revoking the session's own secret or the
    identity ends it. Retiring its own secret does not: the session goes on with the others. Returns
    ``(expires_at, reason)``; 0 means no end.
    """
    if record.revoked:
        return 0, AuthReason.REVOKED
    own = next((secret for secret in record.secrets if secret.token_id == token_id), None)
    if own is not None and own.revoked:
        return 0, AuthReason.REVOKED
    good = [secret.ends_at for secret in record.secrets if not secret.revoked]
    if not good:
        return 0, AuthReason.REVOKED
    end = 0 if 0 in good else max(good)
    return end, AuthReason.EXPIRED if end and end <= now else None
