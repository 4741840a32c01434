"""django-allauth adapters: rate limits of sign-in, audited account changes, encrypted second factors."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from allauth.account.adapter import DefaultAccountAdapter
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.usersessions.adapter import DefaultUserSessionsAdapter
from django.conf import settings
from django.http import HttpRequest
from django.shortcuts import render

from cloudsignal.addresses import network_of
from cloudsignal.errors import Limit
from cloudsignal.limits import check, take
from cloudsignal.secrets.sealing import seal, unseal
from orgs.models import User

FACTOR_SECONDS = 300
"""Retry-After of failed second factors, in seconds (``settings.ACCOUNT_RATE_LIMITS``)."""


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    """Rate-limits failed sign-ins by network, and by network and account; never by account alone.

    Guessing from one network is stopped there, and the person can still sign in from another.
    """

    error_messages = DefaultAccountAdapter.error_messages | {
        "account_inactive": "This account is disabled. Ask an operator of this installation to enable it.",
        "cannot_remove_primary_email": "Make another address primary before you remove this one.",
        "duplicate_email": "This address already belongs to your account.",
        "email_password_mismatch": "The email address or the password is wrong. Try again, or reset your password.",
        "email_taken": "This address already belongs to another account. Use a different address.",
        "enter_current_password": "The current password is wrong. Try again.",
        "incorrect_code": "Incorrect code. Enter the code that your app shows now.",
        "incorrect_password": "Incorrect password. Try again.",
        "invalid_password_reset": "The link is invalid or was already used. Request a new one.",
        "max_email_addresses": "An account can have %d email addresses. Remove one first.",
        "rate_limited": "Too many requests. Try again in a minute.",
        "same_as_current": "Enter a value that differs from the current one.",
        "unverified_primary_email": "Confirm this address before you make it primary.",
    }
    """Error messages by django-allauth's codes; codes of disabled features keep its texts."""

    def pre_authenticate(self, request: HttpRequest, **credentials: Any) -> None:
        """Refuse a sign-in after too many failures with 429 and Retry-After, before the password is verified."""
        try:
            for limit, who in _limits_of(request, credentials):
                check(limit, who)
        except Limit as error:
            raise ImmediateHttpResponse(_too_many(request, error)) from None

    def validation_error(self, code: str, *args: Any) -> Any:
        """Refuse after too many wrong second factors with 429 and Retry-After instead of a form error."""
        if code == "too_many_login_attempts":
            error = Limit(
                "rate_limited", "Too many wrong codes; try again in five minutes.", retry_after=FACTOR_SECONDS
            )
            raise ImmediateHttpResponse(_too_many(self.request, error))
        return super().validation_error(code, *args)

    def authentication_failed(self, request: HttpRequest, **credentials: Any) -> None:
        """Count a failed sign-in."""
        for limit, who in _limits_of(request, credentials):
            with suppress(Limit):
                take(limit, who)

    def send_mail(self, template_prefix: str, email: str, context: Mapping[str, Any]) -> None:
        """Send mail whose links use the public URL, never the request's Host header, which an attacker may choose."""
        here, public = self.request.build_absolute_uri("/"), f"{settings.PUBLIC_URL}/"
        links = {
            name: public + value.removeprefix(here)
            for name, value in context.items()
            if isinstance(value, str) and value.startswith(here)
        }
        site = {"name": "CloudSignal", "domain": urlsplit(public).netloc}
        super().send_mail(template_prefix, email, {**context, **links, "current_site": site})

    def send_notification_mail(self, template_prefix: str, user: User, *args: Any, **kwargs: Any) -> None:
        """Record the account change in the audit log. django-allauth calls this even if notifications are off."""
        from orgs.accounts.events import CHANGES, record_account_change

        if change := CHANGES.get(template_prefix):
            record_account_change(user, change, ip=str(self.request.META.get("REMOTE_ADDR") or ""))
        super().send_notification_mail(template_prefix, user, *args, **kwargs)

    def set_password(self, user: User, password: str) -> None:
        """Set a new password and end the person's CLI sessions: the old password may have leaked."""
        super().set_password(user, password)
        _end_cli_sessions(self.request, user)


class SessionsAdapter(DefaultUserSessionsAdapter):  # type: ignore[misc]
    """Sessions that "sign out everywhere" ends."""

    def end_sessions(self, sessions: Iterable[Any]) -> None:
        """End browser sessions and CLI sessions."""
        super().end_sessions(sessions)
        _end_cli_sessions(self.request, self.request.user)


class MfaAdapter(DefaultMFAAdapter):  # type: ignore[misc]
    """Encrypts TOTP secrets and recovery codes at rest, with a key outside the database."""

    error_messages = DefaultMFAAdapter.error_messages | {
        "add_email_blocked": "Turn off two-factor authentication before you add an email address.",
        "cannot_delete_authenticator": "You cannot turn off two-factor authentication now.",
        "cannot_generate_recovery_codes": "Set up an authenticator app or a key before you generate recovery codes.",
        "incorrect_code": "Incorrect code. Enter the code that your app shows now.",
        "unverified_email": "Confirm your email address before you set up two-factor authentication.",
    }

    def generate_authenticator_name(self, user: User, type: Any) -> str:  # noqa: A002 - django-allauth's name
        """The default name of a new security key."""
        from allauth.mfa.models import Authenticator

        return f"Key {Authenticator.objects.filter(user=user, type=type).count() + 1}"

    def encrypt(self, text: str) -> str:
        """Encrypt a secret."""
        return base64.b64encode(seal("second factor", "", text.encode())).decode()

    def decrypt(self, encrypted_text: str) -> str:
        """Decrypt a secret."""
        return unseal("second factor", "", base64.b64decode(encrypted_text)).decode()


def _end_cli_sessions(request: HttpRequest, user: User) -> None:
    from orgs.api_keys.keys import end_cli_sessions

    end_cli_sessions(user, ip=str(request.META.get("REMOTE_ADDR") or ""))


def _limits_of(request: HttpRequest, credentials: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    network = network_of(str(request.META.get("REMOTE_ADDR") or ""))
    account = str(credentials.get("email") or credentials.get("username") or "").casefold()
    return ("failed_sign_ins", network), ("failed_sign_ins_to_account", f"{network} {account}")


def _too_many(request: HttpRequest, error: Limit) -> Any:
    context = {"error": error, "title": "Too many failed sign-ins", "signed_in": False}
    response = render(request, "error.html", context, status=HTTPStatus.TOO_MANY_REQUESTS)
    response.headers["Retry-After"] = str(error.retry_after)
    return response
