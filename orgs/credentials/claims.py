"""Claims of an MQTT identity, which policies compare. Bounded, so that records stay small on every edge."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cloudsignal.errors import Invalid, quoted
from cloudsignal.wire.credential import ClaimValue

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:/-]{0,63}\Z")
CLAIMS_MAX = 50
TEXT_MAX = 1024
LIST_MAX = 50


def clean_claims(claims: Mapping[str, object]) -> dict[str, ClaimValue]:
    """Validate claims: names, types and sizes of values. Raises :class:`Invalid` naming the claim."""
    if not isinstance(claims, Mapping):
        raise Invalid("bad_claims", "Claims are an object of names and values.", field="claims")
    return bounded({_name(name): _value(name, value) for name, value in claims.items()})


def bounded(claims: dict[str, ClaimValue]) -> dict[str, ClaimValue]:
    """Check the number of claims; raises :class:`Invalid` for too many."""
    if len(claims) > CLAIMS_MAX:
        raise Invalid("too_many_claims", f"An identity has at most {CLAIMS_MAX} claims.", field="claims")
    return claims


def _name(name: object) -> str:
    if not isinstance(name, str) or not NAME.match(name):
        raise Invalid(
            "bad_claim_name",
            f"{quoted(str(name)[:64])} cannot name a claim: use up to 64 letters, digits and _.:/-, a letter first.",
            field="claims",
        )
    return name


def _value(name: str, value: object) -> ClaimValue:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        if value != value or abs(value) > 2**53:  # noqa: PLR0124 - NaN differs from itself
            raise Invalid("bad_claim", f"The number in claim {quoted(name)} is out of range.", field="claims")
        return value
    if isinstance(value, str):
        return _text(name, value)
    if isinstance(value, list | tuple) and len(value) <= LIST_MAX and all(isinstance(item, str) for item in value):
        return [_text(name, item) for item in value]
    raise Invalid(
        "bad_claim",
        f"Claim {quoted(name)} must be a string, a number, true or false, or a list of at most {LIST_MAX} strings.",
        field="claims",
    )


def _text(name: str, value: str) -> str:
    if len(value) > TEXT_MAX or "\0" in value:
        raise Invalid("bad_claim", f"Claim {quoted(name)}: at most {TEXT_MAX} characters and no NUL.", field="claims")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Invalid("bad_claim", f"Claim {quoted(name)} is not valid Unicode.", field="claims") from None
    return value
