"""What both protocols of single sign-on share: addresses, the client's secret, what is asserted, what is refused."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings

from audit.kinds import SignOnReason
from cloudsignal.secrets.sealing import seal, unseal
from orgs.models import SingleSignOn

SECRET_PURPOSE = "sign-on secret"  # noqa: S105 - what the key is derived for
SUBJECT_MAX = 255
RECENT_SECONDS = 300
"""How long ago a person may have authenticated when they are asked to do it again."""
PROVEN_WITHIN = 30 * 24 * 3600
"""``max_age`` of an ordinary sign-in, in seconds: asking for one makes a provider say ``auth_time`` (OpenID Connect
Core s2, s3.1.2.1); so long a one makes nobody sign in again."""
SKEW = 60
"""Seconds that the provider's clock may differ from ours."""


class Refused(Exception):  # noqa: N818 - it reads as what it says
    """The provider's answer is not accepted. The message is for the person at the door and names no secret."""

    def __init__(self, reason: SignOnReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = printable(message)


@dataclass(frozen=True, slots=True)
class Begun:
    """Where the browser goes, and what has to be kept in its session until it returns."""

    url: str
    state: str
    """OIDC: the state parameter. SAML: the id of the request."""
    nonce: str = ""
    verifier: str = ""


@dataclass(frozen=True, slots=True)
class Asserted:
    """Whom the provider says it is."""

    subject: str
    email: str
    email_verified: bool
    name: str = ""
    authenticated_at: float = 0.0
    """When the provider proves that the person has authenticated (seconds since the epoch); 0 when it does not say. A
    sign-in without it counts for no dangerous act: the provider may have gone by a session it had."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """What is to be entered at the identity provider."""

    returns_to: str
    """OIDC: the redirect URI. SAML: the assertion consumer service."""
    entity_id: str
    """SAML: our name, where our metadata is served."""


def addresses_of(sign_on: SingleSignOn) -> Addresses:
    """Where the provider sends people back to. From the public address, never from what a request says of itself."""
    base = f"{settings.PUBLIC_URL}/accounts/sso/{sign_on.org_id}/{sign_on.pk}"
    answer = "acs" if sign_on.kind == SingleSignOn.Kind.SAML else "callback"
    return Addresses(f"{base}/{answer}/", f"{base}/metadata/")


def seal_secret(sign_on: SingleSignOn, secret: str) -> bytes:
    """The client's secret as it is stored: it opens for this very row only."""
    return seal(SECRET_PURPOSE, f"{sign_on.org_id} {sign_on.pk}", secret.encode())


def secret_of(sign_on: SingleSignOn) -> str:
    """The client's secret; empty for a public client. Raises ``SealError`` when the key changed."""
    if sign_on.secret is None:
        return ""
    return unseal(SECRET_PURPOSE, f"{sign_on.org_id} {sign_on.pk}", bytes(sign_on.secret)).decode()


def printable(text: str) -> str:
    """What a provider says, without what no page should show and no database holds: NUL, half characters, overrides."""
    return "".join(letter for letter in text if letter.isprintable())


def checked_subject(subject: object) -> str:
    """A usable subject; raises :class:`Refused`."""
    if not isinstance(subject, str) or not 0 < len(subject) <= SUBJECT_MAX or not subject.isprintable():
        raise Refused(SignOnReason.BAD_ASSERTION, "The response names no user: its subject is missing or invalid.")
    return subject
