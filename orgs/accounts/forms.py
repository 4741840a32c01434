"""django-allauth's forms in the words of the other pages."""

from __future__ import annotations

from typing import Any

from allauth.account import forms
from allauth.account.fields import EmailField
from allauth.core import context
from allauth.mfa.webauthn import forms as webauthn

EMAIL_MAX = 320
LABELS = {
    "password1": "New password",
    "password2": "Repeat the password",
    "oldpassword": "Current password",
    "remember": "Stay signed in",
    "passwordless": "Sign in with this key alone (passkey)",
}
"""Labels by the name of the field, where django-allauth's are not in our words."""
HELP = {"passwordless": "Needs a key that checks your fingerprint, face or PIN."}


class _Worded:
    """Fields are called the same everywhere, and an email address that a link names is filled in."""

    fields: dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        request = context.request
        named = request.GET.get("email", "")[:EMAIL_MAX] if request is not None else ""
        for name, field in self.fields.items():
            field.label = LABELS.get(name, field.label)
            field.help_text = HELP.get(name, field.help_text)
            if isinstance(field, EmailField):
                field.label = "Email address"
                field.initial = field.initial or named


class LoginForm(_Worded, forms.LoginForm):  # type: ignore[misc]
    """Signing in."""


class SignupForm(_Worded, forms.SignupForm):  # type: ignore[misc]
    """A new account."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["password1"].label = "Password"


class AddEmailForm(_Worded, forms.AddEmailForm):  # type: ignore[misc]
    """A further address."""


class ResetPasswordForm(_Worded, forms.ResetPasswordForm):  # type: ignore[misc]
    """A forgotten password."""


class ResetPasswordKeyForm(_Worded, forms.ResetPasswordKeyForm):  # type: ignore[misc]
    """A new password in place of a forgotten one."""


class ChangePasswordForm(_Worded, forms.ChangePasswordForm):  # type: ignore[misc]
    """Another password."""


class SetPasswordForm(_Worded, forms.SetPasswordForm):  # type: ignore[misc]
    """A first password."""


class AddWebAuthnForm(_Worded, webauthn.AddWebAuthnForm):  # type: ignore[misc]
    """A further key."""
