"""Validation of a provider's JSON Web Token (RFC 7519, RFC 8725), for the exchange and for testing a token.

Every comparison is PyJWT's. Algorithms are those the provider is pinned to; the token's header only chooses among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from jwt import PyJWK

from cloudsignal.errors import quoted
from cloudsignal.secrets.sealing import SealError, unseal
from orgs.models import IdentityProvider
from orgs.providers.jwks import KeyMissingError, find_key, jwks_url_of

SKEW = 60
"""Allowed clock skew between the provider and this installation, in seconds."""
TOKEN_MAX = 16 * 1024
SECRET_PURPOSE = "provider secret"  # noqa: S105 - what the key is derived for
EXTERNAL_ID_MAX = 255


@dataclass(frozen=True, slots=True)
class Check:
    """One check: ``name`` is stable; ``detail`` says what was found, in a sentence."""

    name: str
    passed: bool
    detail: str
    expired: bool = False
    """Whether the check failed because its time is over: the token service has a code of its own for it."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The subject of a valid token."""

    external_id: str
    email: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a validation: every check in order, and the subject if all passed."""

    checks: tuple[Check, ...]
    subject: Subject | None

    @property
    def failed(self) -> Check | None:
        """The first failed check, which decides the response."""
        return next((check for check in self.checks if not check.passed), None)


def judge(provider: IdentityProvider, token: str) -> Verdict:
    """Validate ``token``. It may fetch keys, so never call it inside a transaction. Raises nothing."""
    header, payload, problem = _read(token)
    if problem:
        return Verdict((Check("format", False, problem),), None)
    checks = [Check("format", True, "It is a signed JSON Web Token."), *_signature(provider, token, header)]
    checks += [check(provider, token, payload) for check in _CLAIMS]
    if all(check.passed for check in checks):
        return Verdict(tuple(checks), Subject(str(payload["sub"]), str(payload["email"])))
    return Verdict(tuple(checks), None)


def unverified_issuer(token: str) -> str:
    """The issuer a token claims, to choose the provider that will check it; empty when there is none."""
    _, payload, problem = _read(token)
    return "" if problem else str(payload.get("iss", ""))


def _read(token: str) -> tuple[Mapping[str, Any], Mapping[str, Any], str]:
    if len(token) > TOKEN_MAX:
        return {}, {}, f"It is longer than {TOKEN_MAX} characters."
    try:
        found = jwt.decode_complete(token, options={"verify_signature": False})
    except (jwt.InvalidTokenError, ValueError, RecursionError) as error:
        return {}, {}, f"It is not a signed JSON Web Token: {error}."[:200]
    return found["header"], found["payload"], ""


def _signature(provider: IdentityProvider, token: str, header: Mapping[str, Any]) -> Iterator[Check]:
    algorithm = header.get("alg")
    allowed = ", ".join(provider.algorithms)
    if algorithm not in provider.algorithms:
        yield Check("algorithm", False, f"It says it is signed with {quoted(algorithm)}; only {allowed} is accepted.")
        return
    yield Check("algorithm", True, f"{algorithm} is accepted.")
    try:
        key = _key(provider, header)
    except (KeyMissingError, SealError) as error:
        yield Check("key", False, str(error))
        return
    yield Check("key", True, "The provider's key was found.")
    good = _verifies(token, key, str(algorithm))
    if not good and provider.secret is None:  # its key may have been replaced under the same id
        with suppress(KeyMissingError):
            good = _verifies(token, _key(provider, header, again=True), str(algorithm))
    if good:
        yield Check("signature", True, "The signature verifies.")
    else:
        yield Check("signature", False, "The signature does not verify with the provider's key.")


def _verifies(token: str, key: PyJWK | bytes, algorithm: str) -> bool:
    try:
        jwt.decode_complete(token, key, algorithms=[algorithm], options=_only())
    except (jwt.InvalidTokenError, jwt.InvalidKeyError, ValueError, TypeError):
        return False
    return True


def _key(provider: IdentityProvider, header: Mapping[str, Any], *, again: bool = False) -> PyJWK | bytes:
    if provider.secret is not None:
        return unseal(SECRET_PURPOSE, f"{provider.org_id} {provider.pk}", bytes(provider.secret))
    kid = header.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise KeyMissingError("The token's key id is not a text.")
    url = provider.jwks_url or jwks_url_of(provider.issuer)
    return find_key(url, kid=kid, algorithm=str(header["alg"]), again=again)


def _only(*checks: str) -> Any:
    """PyJWT options with exactly these claims checked (and the signature, when none is named)."""
    names = ("verify_exp", "verify_nbf", "verify_iat", "verify_iss", "verify_aud", "verify_sub", "verify_jti")
    return {"verify_signature": not checks, **{name: name in checks for name in names}}


def _claim_check(
    name: str, options: tuple[str, ...], *, require: str = "", good: str
) -> Callable[[IdentityProvider, str, Mapping[str, Any]], Check]:
    def check(provider: IdentityProvider, token: str, payload: Mapping[str, Any]) -> Check:
        if require and require not in payload:
            return Check(name, False, f"It has no {require} claim.")
        try:
            jwt.decode_complete(
                token, options=_only(*options), leeway=SKEW, issuer=provider.issuer, audience=provider.audience
            )
        except (jwt.InvalidTokenError, ValueError, TypeError, OverflowError) as error:
            expired = isinstance(error, jwt.ExpiredSignatureError)
            return Check(name, False, _why(name, provider, payload, error), expired=expired)
        return Check(name, True, good)

    return check


def _why(name: str, provider: IdentityProvider, payload: Mapping[str, Any], error: Exception) -> str:
    if isinstance(error, jwt.ExpiredSignatureError):
        with suppress(OverflowError):  # of the stone age
            ended = datetime.fromtimestamp(0, UTC) + timedelta(seconds=int(payload["exp"]))
            return f"It expired at {ended:%Y-%m-%d %H:%M:%S} UTC."
    if name == "issuer":
        return f"It was issued by {quoted(str(payload.get('iss'))[:200])}, not by {quoted(provider.issuer)}."
    if name == "audience":
        return f"It is meant for {quoted(str(payload.get('aud'))[:200])}, not for {quoted(provider.audience)}."
    return f"{str(error).rstrip('.')}."


def _audience(provider: IdentityProvider, token: str, payload: Mapping[str, Any]) -> Check:
    """Clerk's session tokens carry no ``aud``; their ``azp`` names the page they were made for."""
    if provider.kind == IdentityProvider.Kind.CLERK and "aud" not in payload:
        if payload.get("azp") == provider.audience:
            return Check("audience", True, "It is meant for us (azp).")
        return Check(
            "audience", False, f"Its azp is {quoted(str(payload.get('azp'))[:200])}, not {quoted(provider.audience)}."
        )
    check = _claim_check("audience", ("verify_aud",), require="aud", good="It is meant for us.")
    return check(provider, token, payload)


def _subject(provider: IdentityProvider, token: str, payload: Mapping[str, Any]) -> Check:
    found = payload.get("sub")
    good = isinstance(found, str) and 0 < len(found) <= EXTERNAL_ID_MAX and found.isprintable()
    return Check(
        "subject", good, "It names a user." if good else "It names no user: the sub claim is missing or invalid."
    )


def _email(provider: IdentityProvider, token: str, payload: Mapping[str, Any]) -> Check:
    found = payload.get("email")
    if not isinstance(found, str) or "@" not in found or len(found) > 254 or not found.isprintable():
        return Check(
            "email", False, "It has no email claim; configure the provider to include the user's email address."
        )
    if payload.get("email_verified", True) not in (True, "true"):
        return Check("email", False, "Its email address is not verified (email_verified is false).")
    return Check("email", True, "It has an email address.")


_CLAIMS = (
    _claim_check("expiry", ("verify_exp",), require="exp", good="It has not expired."),
    _claim_check("start", ("verify_nbf", "verify_iat"), good="It is already valid."),
    _claim_check("issuer", ("verify_iss",), require="iss", good="The issuer is the provider."),
    _audience,
    _subject,
    _email,
)
