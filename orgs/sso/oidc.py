"""Signing in with OpenID Connect: the authorization code flow with PKCE, state and nonce (OpenID Connect Core s3.1).

The ID token's signature is always verified, with an algorithm that the organization has pinned, although it comes
straight from the provider: the one place that says who somebody is should not rest on TLS alone. Every comparison of
claims is PyJWT's. What is fetched goes through :mod:`cloudsignal.fetch`: public addresses only, bounded in time.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

import jwt
from jwt import PyJWK

from audit.kinds import SignOnReason
from cloudsignal.errors import quoted
from cloudsignal.fetch import FetchError, check_url, get_json, post_form
from cloudsignal.secrets.sealing import SealError
from orgs.models import SingleSignOn
from orgs.providers.jwks import Configuration, KeyMissingError, KeysUnavailableError, configuration_of, find_key
from orgs.sso.protocol import (
    PROVEN_WITHIN,
    RECENT_SECONDS,
    SKEW,
    Asserted,
    Begun,
    Refused,
    addresses_of,
    checked_subject,
    printable,
    secret_of,
)

TOKEN_MAX = 32 * 1024


def begin(sign_on: SingleSignOn, *, again: bool = False) -> Begun:
    """Begin an OIDC sign-in; ``again`` requests a fresh authentication. Raises :class:`Refused`."""
    configuration = _configuration(sign_on)
    _check(configuration.authorization_endpoint)
    state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    asked = {
        "response_type": "code", "client_id": sign_on.client_id, "redirect_uri": addresses_of(sign_on).returns_to,
        "scope": "openid email profile", "state": state, "nonce": nonce,
        "code_challenge": challenge, "code_challenge_method": "S256", "max_age": str(PROVEN_WITHIN),
    }  # fmt: skip
    if again:
        asked |= {"prompt": "login", "max_age": "0"}
    joint = "&" if urlsplit(configuration.authorization_endpoint).query else "?"
    return Begun(f"{configuration.authorization_endpoint}{joint}{urlencode(asked)}", state, nonce, verifier)


def finish(
    sign_on: SingleSignOn, answer: Mapping[str, str], *, nonce: str, verifier: str, again: bool = False
) -> Asserted:
    """Complete an OIDC sign-in from the callback's parameters, whose ``state`` the caller has verified.

    Raises :class:`Refused`. Goes on the network, so never call it inside a transaction.
    """
    if answer.get("iss", sign_on.issuer) != sign_on.issuer:  # RFC 9207: an answer of another server
        raise Refused(SignOnReason.BAD_ASSERTION, "The response came from a different issuer than requested.")
    if "code" not in answer:
        said = answer.get("error", "")[:100]
        raise Refused(
            SignOnReason.PROVIDER_REFUSED, f"The identity provider refused the sign-in: {said or 'no reason given'}."
        )
    configuration = _configuration(sign_on)
    tokens = _exchange(sign_on, configuration, answer["code"], verifier)
    claims = _claims(sign_on, configuration, str(tokens.get("id_token", "")), nonce)
    if again:
        _check_recent(claims)
    if not claims.get("email") and configuration.userinfo_endpoint and isinstance(tokens.get("access_token"), str):
        claims = _with_userinfo(configuration, tokens["access_token"], claims)
    email = claims.get("email")
    return Asserted(
        subject=checked_subject(claims["sub"]),
        email=email if isinstance(email, str) and email.isprintable() else "",
        email_verified=claims.get("email_verified") in (True, "true"),
        name=printable(str(claims.get("name") or ""))[:120],
        authenticated_at=_authenticated_at(claims),
    )


def _configuration(sign_on: SingleSignOn) -> Configuration:
    try:
        return configuration_of(sign_on.issuer)
    except KeysUnavailableError as error:
        raise Refused(SignOnReason.PROVIDER_UNREACHABLE, str(error)) from None


def _check(url: str) -> None:
    try:
        check_url(url)
    except FetchError as error:
        raise Refused(SignOnReason.PROVIDER_UNREACHABLE, f"The issuer's configuration is invalid: {error}") from None


def _exchange(sign_on: SingleSignOn, configuration: Configuration, code: str, verifier: str) -> Mapping[str, Any]:
    """Exchange the authorization code for tokens (RFC 6749 s4.1.3, RFC 7636 s4.5)."""
    form = {
        "grant_type": "authorization_code", "code": code, "redirect_uri": addresses_of(sign_on).returns_to,
        "client_id": sign_on.client_id, "code_verifier": verifier,
    }  # fmt: skip
    basic = None
    try:
        if secret := secret_of(sign_on):
            if configuration.takes_secret_in_form:
                form["client_secret"] = secret
            else:
                basic = (quote_plus(sign_on.client_id), quote_plus(secret))
        status, found = post_form(configuration.token_endpoint, form, basic=basic)
    except (FetchError, SealError) as error:
        raise Refused(SignOnReason.PROVIDER_UNREACHABLE, f"The code could not be exchanged: {error}") from None
    if status != 200 or not isinstance(found, dict):
        said = str(found.get("error", ""))[:100] if isinstance(found, dict) else ""
        raise Refused(SignOnReason.PROVIDER_REFUSED, f"The identity provider refused the code: {said or status}.")
    return found


def _claims(sign_on: SingleSignOn, configuration: Configuration, token: str, nonce: str) -> dict[str, Any]:
    """Verify an ID token and return its claims (OpenID Connect Core s3.1.3.7)."""
    if not token or len(token) > TOKEN_MAX:
        raise Refused(SignOnReason.BAD_ASSERTION, "The identity provider sent no ID token.")
    try:
        header = jwt.get_unverified_header(token)
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in sign_on.algorithms:
            allowed = ", ".join(sign_on.algorithms)
            raise Refused(
                SignOnReason.BAD_ASSERTION,
                f"The ID token is signed with {quoted(algorithm)}; accepted: {allowed}.",
            )
        kid = kid if isinstance(kid, str) else None
        try:
            key = find_key(configuration.jwks_uri, kid=kid, algorithm=str(algorithm))
            claims = _decode(sign_on, token, key, str(algorithm))
        except jwt.InvalidSignatureError:  # its key may have been replaced under the same id
            key = find_key(configuration.jwks_uri, kid=kid, algorithm=str(algorithm), again=True)
            claims = _decode(sign_on, token, key, str(algorithm))
    except KeysUnavailableError as error:
        raise Refused(SignOnReason.PROVIDER_UNREACHABLE, str(error)) from None
    except (KeyMissingError, jwt.InvalidTokenError, ValueError, TypeError, RecursionError, OverflowError) as error:
        raise Refused(SignOnReason.BAD_ASSERTION, f"The ID token is not accepted: {error}"[:300]) from None
    found = claims.get("nonce")
    if not isinstance(found, str) or not hmac.compare_digest(found.encode(), nonce.encode()):
        raise Refused(SignOnReason.BAD_ASSERTION, "The ID token belongs to another sign-in: its nonce differs.")
    several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    if claims.get("azp", None if several else sign_on.client_id) != sign_on.client_id:
        raise Refused(SignOnReason.BAD_ASSERTION, "The ID token was issued for another client (azp).")
    return claims


def _decode(sign_on: SingleSignOn, token: str, key: PyJWK, algorithm: str) -> dict[str, Any]:
    return jwt.decode(
        token, key, algorithms=[algorithm], audience=sign_on.client_id, issuer=sign_on.issuer, leeway=SKEW,
        options={"require": ["exp", "iat", "iss", "aud", "sub"]},
    )  # fmt: skip


def _check_recent(claims: Mapping[str, Any]) -> None:
    if time.time() - _authenticated_at(claims) > RECENT_SECONDS + SKEW:
        raise Refused(
            SignOnReason.NOT_RECENT,
            "The identity provider did not authenticate you again (auth_time). Sign out there and try again.",
        )


def _authenticated_at(claims: Mapping[str, Any]) -> float:
    """``auth_time`` (OpenID Connect Core s2); 0 when it is missing, no number, or lies in the future."""
    at = claims.get("auth_time")
    proven = isinstance(at, int | float) and not isinstance(at, bool) and 0 < at <= time.time() + SKEW
    return float(at) if proven and isinstance(at, int | float) else 0.0


def _with_userinfo(configuration: Configuration, token: str, claims: dict[str, Any]) -> dict[str, Any]:
    """Return the claims with the email address from the UserInfo endpoint (OpenID Connect Core s5.3.2)."""
    try:
        found = get_json(configuration.userinfo_endpoint, bearer=token)
    except (FetchError, ValueError) as error:
        raise Refused(SignOnReason.PROVIDER_UNREACHABLE, f"Your email address could not be read: {error}") from None
    if not isinstance(found, dict) or found.get("sub") != claims["sub"]:
        raise Refused(SignOnReason.BAD_ASSERTION, "The identity provider's UserInfo response belongs to another user.")
    return claims | {name: found[name] for name in ("email", "email_verified", "name") if name in found}
