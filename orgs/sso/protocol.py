"""The common ground of OIDC and SAML: callback URLs, the OAuth client secret, assertions and refusals."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings

from audit.kinds import SignOnReason
from cloudsignal.secrets.sealing import seal, unseal
from orgs.models import SingleSignOn

SECRET_PURPOSE = "sign-on secret"  # noqa: S105 - what the key is derived for
SUBJECT_MAX = 255
RECENT_SECONDS = 300
"""Maximum age of an authentication, in seconds, when a person is asked to authenticate again."""
PROVEN_WITHIN = 30 * 24 * 3600
"""``max_age`` of an ordinary sign-in, in seconds. Sending it makes the provider return ``auth_time`` (OpenID Connect
Core s2, s3.1.2.1); it is long enough that nobody has to sign in again."""
SKEW = 60
"""Allowed clock skew between the identity provider and this installation, in seconds."""


class Refused(Exception):  # noqa: N818 - it reads as what it says
    """A sign-in through SSO is refused. The message is shown to the person and contains no secret."""

    def __init__(self, reason: SignOnReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = printable(message)


@dataclass(frozen=True, slots=True)
class Begun:
    """An authorization request: its URL, and the values that the browser's session keeps until the response."""

    url: str
    state: str
    """OIDC: the state parameter. SAML: the id of the request."""
    nonce: str = ""
    verifier: str = ""


@dataclass(frozen=True, slots=True)
class Asserted:
    """The identity that the provider asserts."""

    subject: str
    email: str
    email_verified: bool
    name: str = ""
    authenticated_at: float = 0.0
    """When the person authenticated at the provider (seconds since the epoch); 0 when the provider does not say. A
    sign-in without it does not count for step-up: the provider may have used a session it had."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """The values that an administrator enters at the identity provider."""

    returns_to: str
    """OIDC: the redirect URI. SAML: the assertion consumer service."""
    entity_id: str
    """SAML: our entity ID, which is the URL of our metadata."""


def addresses_of(sign_on: SingleSignOn) -> Addresses:
    """The callback URLs of a connection, built from the public URL and never from a request's Host header."""
    base = f"{settings.PUBLIC_URL}/accounts/sso/{sign_on.org_id}/{sign_on.pk}"
    answer = "acs" if sign_on.kind == SingleSignOn.Kind.SAML else "callback"
    return Addresses(f"{base}/{answer}/", f"{base}/metadata/")


def seal_secret(sign_on: SingleSignOn, secret: str) -> bytes:
    """Encrypt the OAuth client secret of a connection; it can be decrypted for this row only."""
    return seal(SECRET_PURPOSE, f"{sign_on.org_id} {sign_on.pk}", secret.encode())


def secret_of(sign_on: SingleSignOn) -> str:
    """Decrypt the OAuth client secret; empty for a public client. Raises ``SealError`` when the key changed."""
    if sign_on.secret is None:
        return ""
    return unseal(SECRET_PURPOSE, f"{sign_on.org_id} {sign_on.pk}", bytes(sign_on.secret)).decode()


def printable(text: str) -> str:
    """Remove NUL, lone surrogates and bidirectional overrides from a provider's text."""
    return "".join(letter for letter in text if letter.isprintable())


def checked_subject(subject: object) -> str:
    """Validate the subject of an assertion; raises :class:`Refused`."""
    if not isinstance(subject, str) or not 0 < len(subject) <= SUBJECT_MAX or not subject.isprintable():
        raise Refused(SignOnReason.BAD_ASSERTION, "The response names no user: its subject is missing or invalid.")
    return subject
