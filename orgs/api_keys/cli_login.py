"""Sign-in of the CLI: an authorization code with PKCE is exchanged for an API key, once.

The authorization code grant for native applications (RFC 8252) with PKCE (RFC 7636), cut down to the one client there
is: the answer goes to a loopback address or is shown to be pasted, the challenge is always S256. A code lives a minute
on Redis under its hash, sealed: who can read or write Redis can neither learn nor make one.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from cloudsignal.errors import Conflict, DomainError, Forbidden, Invalid, Unavailable
from cloudsignal.limits import take
from cloudsignal.secrets.tickets import keep_facts, take_facts
from cloudsignal.tenancy.scopes import org_scope
from orgs.access.grants import Access, access_org, sso_session_valid
from orgs.actors import SystemActor
from orgs.api_keys.keys import NewKey, create_personal_key, end_personal_keys
from orgs.models import Organization, SsoSession, User

CODE_SECONDS = 60
REPLAY_SECONDS = 600
"""How long a used code is remembered; a replay revokes the key that it gave (RFC 6749 s4.1.2)."""
MACHINE_MAX = 40
_REDIRECT = re.compile(r"http://127\.0\.0\.1:([1-9][0-9]{0,4})/callback")
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_STATE = re.compile(r"[A-Za-z0-9_-]{16,128}")


@dataclass(frozen=True, slots=True)
class LoginRequest:
    """An authorization request of the CLI; only what is validated here is trusted."""

    redirect_uri: str
    """The loopback redirect URI on the person's computer."""
    state: str
    challenge: str
    machine: str
    """The machine name that the CLI sends."""
    shows_code: bool
    """Whether the browser is on another computer: the code is shown, to be pasted."""

    @property
    def origin(self) -> str:
        """The origin of the redirect URI, for the Content-Security-Policy of the consent page."""
        parts = urlsplit(self.redirect_uri)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def phrase(self) -> str:
        """Eight characters that the terminal shows too, so that the person recognizes the request."""
        return phrase(self.challenge)

    def answer(self, **parameters: str) -> str:
        """The redirect URI with ``parameters`` and the state."""
        return f"{self.redirect_uri}?{urlencode({**parameters, 'state': self.state})}"


def phrase(challenge: str) -> str:
    """Format a PKCE challenge as two groups of four characters, as the CLI does."""
    text = base64.b32encode(hashlib.sha256(challenge.encode()).digest()).decode()
    return f"{text[:4]}-{text[4:8]}"


def read_request(asked: Mapping[str, str]) -> LoginRequest:
    """Parse an authorization request; raises :class:`Invalid` for anything that our CLI does not send."""
    redirect_uri, state = asked.get("redirect_uri", ""), asked.get("state", "")
    challenge, machine = asked.get("code_challenge", ""), asked.get("machine", "")
    found = _REDIRECT.fullmatch(redirect_uri)
    if found is None or int(found[1]) > 65535:
        raise Invalid("bad_redirect", "redirect_uri must be http://127.0.0.1:PORT/callback, on this computer.")
    if asked.get("response_type") != "code" or asked.get("code_challenge_method") != "S256":
        raise Invalid("bad_request", "Only response_type=code with code_challenge_method=S256 is supported.")
    if not _CHALLENGE.fullmatch(challenge) or not _STATE.fullmatch(state):
        raise Invalid("bad_request", "code_challenge or state is missing or malformed.")
    machine = "".join(each for each in machine if each.isprintable())[:MACHINE_MAX].strip()
    return LoginRequest(redirect_uri, state, challenge, machine, asked.get("show") == "code")


def approve_login(access: Access, asked: LoginRequest) -> str:
    """Issue an authorization code for an approved request: valid for one minute and one use, with its verifier.

    Raises :class:`Forbidden` for who is no member, :class:`Conflict` unless the organization is active, and
    :class:`Limit` for who signs in all the time.
    """
    if access.user is None or access.role is None:
        raise Forbidden("needs_member", "Only a member of the organization can authorize the CLI.")
    if access.org.status != Organization.Status.ACTIVE:
        raise Conflict("org_not_active", f"{access.org.name} is {access.org.status}; the CLI cannot sign in.")
    take("command_lines", f"user {access.user.pk}")
    code = secrets.token_urlsafe(32)
    way = access.user.sso_session.sign_on_id if access.user.sso_session else ""
    facts = [access.user.pk, access.org_id, way, asked.redirect_uri, asked.challenge, asked.machine]
    keep_facts("code", code, facts, seconds=CODE_SECONDS)
    return code


def redeem_code(code: str, *, verifier: str, redirect_uri: str, ip: str) -> NewKey:
    """Exchange a code for an API key. Every failure uses the code up, with the same error (``invalid_grant``)."""
    facts = take_facts("code", code)
    if facts is None:
        _end_replayed(code, ip)
        raise _refused()
    user_id, org_id, way, wanted_uri, challenge, machine = facts
    proof = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode("utf-8", "replace")).digest()).decode().rstrip("=")
    proven = bool(_VERIFIER.fullmatch(verifier)) and secrets.compare_digest(proof, challenge)
    user = User.objects.filter(pk=user_id, is_active=True).first()
    if not proven or redirect_uri != wanted_uri or user is None:
        raise _refused()
    if way:
        user.sso_session = SsoSession(org_id, way)
        if not sso_session_valid(user.sso_session, user):
            raise _refused()
    made = create_personal_key(access_org(user, org_id, ip), machine=machine)
    with suppress(Unavailable):  # the code is gone either way, and the key exists: its owner must get it
        keep_facts("used", code, [user_id, org_id, made.key.pk], seconds=REPLAY_SECONDS)
    return made


def _end_replayed(code: str, ip: str) -> None:
    """Revoke the key of a replayed code: one of the two who presented the code has stolen it."""
    facts = take_facts("used", code)
    if facts is None:
        return
    user_id, org_id, key_id = facts
    with org_scope(org_id):
        person = User.objects.get(pk=user_id)
        end_personal_keys(SystemActor(org_id, ip=ip), person, key_id=key_id)


def _refused() -> DomainError:
    return DomainError(
        "invalid_grant", "The code is invalid, already used or older than a minute; run `cloudsignal login` again."
    )
