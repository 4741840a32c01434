"""People who sign in to the dashboard. Not MQTT clients: those are :class:`~orgs.models.MqttIdentity`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager
from django.db import models
from django.db.models.functions import Lower
from django.utils import timezone


@dataclass(frozen=True, slots=True)
class Through:
    """How a session came about: through the single sign-on of one organization, which vouches for it there alone."""

    org_id: str
    sign_on_id: str


class UserManager(BaseUserManager["User"]):
    """Makes people; an e-mail address is stored with its domain in lower case and compared without case."""

    use_in_migrations = True

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> User:
        """A new person; without a password they cannot sign in by one. Raises ``ValueError`` without an e-mail."""
        if not email:
            raise ValueError("a user needs an email address")
        user = self.model(email=self.normalize_email(email), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> User:
        """A new operator (``manage.py createsuperuser``)."""
        return self.create_user(email, password, is_operator=True, **fields)

    def get_by_natural_key(self, username: str | None) -> User:
        """The person with this e-mail address, in any case."""
        return self.get(email__iexact=username)


class User(AbstractBaseUser):
    """A person. ``is_operator`` marks platform staff, who are no members of organizations by it."""

    email = models.EmailField(max_length=254, unique=True)
    name = models.CharField(max_length=120, blank=True)
    is_active = models.BooleanField(default=True)
    is_operator = models.BooleanField(default=False)
    date_joined = models.DateTimeField(default=timezone.now)

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    objects = UserManager()

    through: Through | None = None
    """Not stored: set on the person of a session that came through single sign-on, which reaches that organization
    only. Whoever runs an identity provider can be anybody there, so it must open nothing beyond that organization."""

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(Lower("email"), name="orgs_user_email_lower")]

    def __str__(self) -> str:
        return self.email

    def reaches(self, org_id: str) -> bool:
        """Whether the way this person came in leads to the organization at all; a membership is needed besides."""
        return self.through is None or self.through.org_id == org_id

    @property
    def is_staff(self) -> bool:
        """Django's name for platform staff."""
        return self.is_operator
