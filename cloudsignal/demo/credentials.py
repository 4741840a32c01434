"""Short-lived MQTT credentials of the demo fleet, refreshed before they expire."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from django.db import Error as DatabaseError
from django.db import close_old_connections

from cloudsignal.demo.cast import Device
from cloudsignal.errors import DomainError

if TYPE_CHECKING:
    from orgs.access.grants import Access
    from orgs.credentials.issuing import Issued

TTL = 900
"""Seconds a device's credential lives: short enough that a refresh is seen within a quarter of an hour."""


class CredentialsUnavailable(Exception):  # noqa: N818 - a state, not a defect
    """A credential cannot be issued right now; try again later."""


class CredentialSource:
    """Issues and refreshes the credentials of one organization's devices."""

    def __init__(self, owner: str, organization: str) -> None:
        self._owner = owner
        self._organization = organization
        self._access: Access | None = None
        self._credentials: dict[str, Issued] = {}

    def credential(self, device: Device, *, anew: bool) -> Issued:
        """The device's credential; a new one when it has none, its own has expired, or ``anew``.

        Raises :class:`CredentialsUnavailable` while the database or the organization cannot be reached.
        """
        known = self._credentials.get(device.username)
        if known is None or anew or _left(known) < 5:
            known = self._credentials[device.username] = self._issue(device)
        return known

    def refresh_if_due(self, device: Device) -> None:
        """Refresh at 90 % of the time to live; the live session goes on."""
        known = self._credentials.get(device.username)
        if known is None or known.refresh_recommended_at is None or datetime.now(UTC) < known.refresh_recommended_at:
            return
        from orgs.credentials.issuing import refresh_credential

        try:
            close_old_connections()
            self._credentials[device.username] = refresh_credential(self._enter(), known.token_id)
        except DomainError:
            self._credentials[device.username] = self._issue(device)
        except DatabaseError as error:
            raise CredentialsUnavailable(str(error)) from None

    def _issue(self, device: Device) -> Issued:
        from orgs.credentials.issuing import issue_credential

        try:
            close_old_connections()
            return issue_credential(
                self._enter(), username=device.username, ttl=TTL, claims=device.claims, note="demo fleet",
                replace_existing=True,
            )  # fmt: skip
        except (DatabaseError, DomainError) as error:
            raise CredentialsUnavailable(str(error)) from None

    def _enter(self) -> Access:
        """The owner's access to the organization, which the seed has made."""
        if self._access is None:
            from orgs.access.grants import access_org, list_organizations
            from orgs.models import User

            owner = User.objects.filter(email=self._owner).first()
            entries = list_organizations(owner) if owner else ()
            found = next((entry.org for entry in entries if entry.org.name == self._organization), None)
            if owner is None or found is None:
                raise CredentialsUnavailable(f"{self._organization} does not exist (yet)")
            self._access = access_org(owner, found.pk)
        return self._access


def _left(credential: Issued) -> float:
    """Seconds until the credential expires."""
    return float("inf") if credential.expires_at is None else credential.expires_at.timestamp() - time.time()
