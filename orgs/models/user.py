"""People who sign in to the dashboard. Not MQTT clients: those are :class:`~orgs.models.MqttIdentity`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager
from django.db import models
from django.db.models.functions import Lower
from django.utils import timezone


@dataclass(frozen=True, slots=True)
class SsoSession:
    """The organization and SSO connection of an SSO session, which is limited to that organization."""

    org_id: str
    sign_on_id: str


class UserManager(BaseUserManager["User"]):
    """Creates users; an email address is stored with its domain in lower case and compared without case."""

    use_in_migrations = True

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> User:
        """Create a user, with or without a password. Raises ``ValueError`` without an email address."""
        if not email:
            raise ValueError("a user needs an email address")
        user = self.model(email=self.normalize_email(email), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> User:
        """Create an operator (``manage.py createsuperuser``)."""
        return self.create_user(email, password, is_operator=True, **fields)

    def get_by_natural_key(self, username: str | None) -> User:
        """Get the user with this email address, case-insensitively."""
        return self.get(email__iexact=username)


class User(AbstractBaseUser):
    """A person. ``is_operator`` marks operators; it makes them no member of any organization."""

    email = models.EmailField(max_length=254, unique=True)
    name = models.CharField(max_length=120, blank=True)
    is_active = models.BooleanField(default=True)
    is_operator = models.BooleanField(default=False)
    date_joined = models.DateTimeField(default=timezone.now)

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    objects = UserManager()

    sso_session: SsoSession | None = None
    """The SSO session of this request, or None; not stored. Such a session is limited to its organization: who runs an
    identity provider can be anybody there, so it must open nothing beyond."""

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(Lower("email"), name="orgs_user_email_lower")]

    def __str__(self) -> str:
        return self.email

    def reaches(self, org_id: str) -> bool:
        """Whether the session can reach the organization: an SSO session reaches its own. Needs a membership too."""
        return self.sso_session is None or self.sso_session.org_id == org_id

    @property
    def is_staff(self) -> bool:
        """Django's name for operators."""
        return self.is_operator
