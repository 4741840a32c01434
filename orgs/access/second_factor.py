"""Whether a person has set up a second factor, for organizations that require one."""

from __future__ import annotations

from orgs.models import User


def has_second_factor(user: User) -> bool:
    """Whether the person has set up TOTP or a passkey. Recovery codes alone are none."""
    from allauth.mfa.models import Authenticator

    kinds = (Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN)
    return bool(Authenticator.objects.filter(user=user, type__in=kinds).exists())
