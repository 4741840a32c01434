"""django-allauth's forms with the labels and help texts of this product."""

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
"""Labels by field name that replace django-allauth's."""
HELP = {"passwordless": "Needs a key that checks your fingerprint, face or PIN."}


class _Worded:
    """Sets labels and help texts, and prefills the email address from the link."""

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
    """Sign in."""


class SignupForm(_Worded, forms.SignupForm):  # type: ignore[misc]
    """Create an account."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["password1"].label = "Password"


class AddEmailForm(_Worded, forms.AddEmailForm):  # type: ignore[misc]
    """Add an email address."""


class ResetPasswordForm(_Worded, forms.ResetPasswordForm):  # type: ignore[misc]
    """Request a link to reset the password."""


class ResetPasswordKeyForm(_Worded, forms.ResetPasswordKeyForm):  # type: ignore[misc]
    """Reset the password by the emailed link."""


class ChangePasswordForm(_Worded, forms.ChangePasswordForm):  # type: ignore[misc]
    """Change the password."""


class SetPasswordForm(_Worded, forms.SetPasswordForm):  # type: ignore[misc]
    """Set the first password."""


class AddWebAuthnForm(_Worded, webauthn.AddWebAuthnForm):  # type: ignore[misc]
    """Add a passkey or security key."""
