"""django-allauth's forms in the words of the other pages."""

from __future__ import annotations

from typing import Any

from allauth.account import forms
from allauth.account.fields import EmailField
from allauth.core import context

EMAIL_MAX = 320


class _Worded:
    """An e-mail address is called the same everywhere, and the one that a link names is filled in."""

    fields: dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        request = context.request
        named = request.GET.get("email", "")[:EMAIL_MAX] if request is not None else ""
        for field in self.fields.values():
            if isinstance(field, EmailField):
                field.label = "Email address"
                field.initial = field.initial or named


class LoginForm(_Worded, forms.LoginForm):  # type: ignore[misc]
    """Signing in."""


class SignupForm(_Worded, forms.SignupForm):  # type: ignore[misc]
    """A new account."""


class AddEmailForm(_Worded, forms.AddEmailForm):  # type: ignore[misc]
    """A further address."""


class ResetPasswordForm(_Worded, forms.ResetPasswordForm):  # type: ignore[misc]
    """A forgotten password."""
