"""Signing in with SAML 2.0, by python3-saml (extra ``saml``): requests over redirect, answers over POST.

The library verifies signatures with the certificates of the metadata that the organization saved, and checks status,
issuer, audience, destination, recipient and times. That an answer belongs to a request of this very browser, once,
is checked by the caller, who keeps the request's id in the session.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from django.utils.dateparse import parse_datetime

from audit.kinds import SignOnReason
from cloudsignal.errors import Invalid, Unavailable
from cloudsignal.fetch import FetchError, check_url, get_text
from orgs.models import SingleSignOn
from orgs.sso.protocol import RECENT_SECONDS, SKEW, Asserted, Begun, Refused, addresses_of, checked_subject

METADATA_MAX = 128 * 1024
ANSWER_MAX = 256 * 1024
"""Characters of base64."""
_FORMAT = "urn:oasis:names:tc:SAML:{}:nameid-format:{}"
TRANSIENT = _FORMAT.format("2.0", "transient")
EMAIL_FORMAT = _FORMAT.format("1.1", "emailAddress")
UNSPECIFIED = _FORMAT.format("1.1", "unspecified")
EMAIL_NAMES = (
    "email", "mail", "emailAddress", "urn:oid:0.9.2342.19200300.100.1.3",
    "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/emailaddress",
)  # fmt: skip
FULL_NAMES = (
    "displayName", "name", "urn:oid:2.16.840.1.113730.3.1.241",
    "http://schemas.microsoft.com/identity/claims/displayname",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Provider:
    """The parsed SAML metadata of an identity provider."""

    entity_id: str
    sign_in_url: str
    certificates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """A verified SAML response, and the ID of its request."""

    asserted: Asserted
    in_response_to: str
    recent: bool
    """Whether the person authenticated just now instead of using an existing session at the provider."""


def available() -> bool:
    """Whether the extra is installed and its libraries load."""
    try:
        import onelogin.saml2.auth  # noqa: F401
    except ImportError:
        return False
    return True


def fetch_metadata(url: str) -> str:
    """Fetch metadata from ``url`` with the SSRF guard for URLs of tenants; raises :class:`Invalid`."""
    try:
        return get_text(url.strip())
    except FetchError as error:
        raise Invalid("metadata_unreachable", str(error), field="metadata_url") from None


def read_metadata(text: str) -> Provider:
    """Parse an identity provider's metadata. Raises :class:`Invalid`, and :class:`Unavailable` without SAML."""
    _require()
    from onelogin.saml2.idp_metadata_parser import OneLogin_Saml2_IdPMetadataParser as Parser

    if not text.strip() or len(text) > METADATA_MAX:
        raise Invalid("metadata_missing", f"Paste the metadata: XML of at most {METADATA_MAX} bytes.", field="metadata")
    try:
        found = Parser.parse(text.strip().encode()).get("idp", {})
    except Exception:
        raise Invalid(
            "metadata_unreadable", "This is not SAML metadata: it cannot be read as XML.", field="metadata"
        ) from None
    certificates = found.get("x509certMulti", {}).get("signing") or [found.get("x509cert", "")]
    provider = Provider(
        entity_id=str(found.get("entityId") or ""),
        sign_in_url=str(found.get("singleSignOnService", {}).get("url") or ""),
        certificates=tuple(certificate for certificate in certificates if certificate),
    )
    if not provider.entity_id or len(provider.entity_id) > 255 or not provider.sign_in_url or not provider.certificates:
        raise Invalid(
            "metadata_incomplete",
            "The metadata names no identity provider with an entity id, a sign-in address for HTTP-Redirect and a "
            "certificate to sign with.",
            field="metadata",
        )
    try:
        check_url(provider.sign_in_url)
    except FetchError as error:
        raise Invalid("bad_url", f"The sign-in URL in the metadata is invalid: {error}", field="metadata") from None
    return provider


def begin(sign_on: SingleSignOn, *, again: bool = False) -> Begun:
    """Begin a SAML sign-in; ``again`` requests a fresh authentication. Raises :class:`Refused`."""
    auth = _auth(sign_on, {})
    return Begun(url=auth.login(return_to="", force_authn=again), state=str(auth.get_last_request_id()))


def finish(sign_on: SingleSignOn, answer: str) -> Answer:
    """Verify a posted SAML response. Raises :class:`Refused`.

    Reading a saved answer twice gives the same: the caller sees to it that a request is answered once.
    """
    if not answer or len(answer) > ANSWER_MAX:
        raise Refused(SignOnReason.BAD_ASSERTION, "The identity provider sent no response.")
    auth = _auth(sign_on, {"SAMLResponse": answer})
    try:
        auth.process_response()
        errors = auth.get_errors()
    except Exception as error:
        raise Refused(SignOnReason.BAD_ASSERTION, f"The response cannot be read: {error}"[:300]) from None
    if errors or not auth.is_authenticated():
        why = auth.get_last_error_reason() or ", ".join(errors)
        raise Refused(SignOnReason.BAD_ASSERTION, f"The response is not accepted: {why}"[:300])
    if auth.get_nameid_format() == TRANSIENT:
        raise Refused(
            SignOnReason.BAD_ASSERTION, "The identity provider sends a transient name ID; configure a persistent one."
        )
    attributes: Mapping[str, list[Any]] = auth.get_attributes()
    subject = checked_subject(auth.get_nameid())
    email = _first(attributes, EMAIL_NAMES)
    if not email and auth.get_nameid_format() in {EMAIL_FORMAT, UNSPECIFIED} and "@" in subject:
        email = subject
    # SAML has no word for "verified": what the organization's own provider says of an address is all there is. It
    # counts in approved domains and for invited people, like any other address.
    at = _authenticated_at(auth)
    name = _first(attributes, FULL_NAMES)[:120]
    asserted = Asserted(subject, email, email_verified=bool(email), name=name, authenticated_at=at)
    recent = time.time() - at <= RECENT_SECONDS + SKEW
    return Answer(asserted, str(auth.get_last_response_in_response_to() or ""), recent)


def our_metadata(sign_on: SingleSignOn) -> str:
    """Our own metadata, for the identity provider. Raises :class:`Unavailable` without SAML."""
    _require()
    from onelogin.saml2.settings import OneLogin_Saml2_Settings

    found: bytes | str = OneLogin_Saml2_Settings(_settings(sign_on), sp_validation_only=True).get_sp_metadata()
    return found if isinstance(found, str) else found.decode()


def _require() -> None:
    if not available():
        raise Unavailable("saml_missing", "SAML is not installed. An operator can install requirements/saml.txt.")


def _auth(sign_on: SingleSignOn, form: Mapping[str, str]) -> Any:
    _require()
    from onelogin.saml2.auth import OneLogin_Saml2_Auth

    here = urlsplit(addresses_of(sign_on).returns_to)
    request = {
        "https": "on" if here.scheme == "https" else "off", "http_host": here.netloc, "script_name": here.path,
        "get_data": {}, "post_data": dict(form),
    }  # fmt: skip
    return OneLogin_Saml2_Auth(request, _settings(sign_on))


def _settings(sign_on: SingleSignOn) -> dict[str, Any]:
    try:
        provider = read_metadata(sign_on.metadata)
    except Invalid as error:
        raise Refused(SignOnReason.PROVIDER_UNREACHABLE, error.message) from None
    ours = addresses_of(sign_on)
    return {
        "strict": True,
        "security": {
            # Without these two wishes the library still insists on a signature, of the answer or of the assertion.
            "wantMessagesSigned": False, "wantAssertionsSigned": False, "rejectDeprecatedAlgorithm": True,
            "requestedAuthnContext": False, "wantNameId": True, "wantAttributeStatement": False,
            "allowSingleLabelDomains": True, "allowRepeatAttributeName": True,
        },
        "idp": {
            "entityId": provider.entity_id, "singleSignOnService": {"url": provider.sign_in_url},
            "x509certMulti": {"signing": list(provider.certificates)},
        },
        "sp": {
            "entityId": ours.entity_id, "assertionConsumerService": {"url": ours.returns_to},
            "NameIDFormat": UNSPECIFIED,
        },
    }  # fmt: skip


def _authenticated_at(auth: Any) -> float:
    """The assertion's ``AuthnInstant`` in seconds since the epoch; 0 when it cannot be read or lies in the future.

    The library has made sure that there is one signed assertion with one authentication statement.
    """
    from onelogin.saml2.xml_utils import OneLogin_Saml2_XML

    document = OneLogin_Saml2_XML.to_etree(auth.get_last_response_xml())
    at = document.find(".//{urn:oasis:names:tc:SAML:2.0:assertion}AuthnStatement").get("AuthnInstant", "")
    try:
        instant = parse_datetime(at)
        found = instant.timestamp() if instant is not None else 0.0
    except (ValueError, OverflowError):
        return 0.0
    return found if found <= time.time() + SKEW else 0.0


def _first(attributes: Mapping[str, list[Any]], names: tuple[str, ...]) -> str:
    known = {name.casefold(): values for name, values in attributes.items()}
    for name in names:
        for value in known.get(name.casefold(), []):
            if isinstance(value, str) and value.strip() and value.strip().isprintable():
                return value.strip()
    return ""
