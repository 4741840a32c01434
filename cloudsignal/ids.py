"""Identifiers made by the control plane. Pure Python.

All are lowercase base32 without padding, from the system's random source.
"""

from __future__ import annotations

import os
import re

ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_EVEN = (ALPHABET * 8).encode()
"""Eight bytes to every character: no character is likelier than another."""
ORG = re.compile(r"org_[a-z2-7]{12}\Z")
PLATFORM_ORG = "platform"
"""The organization of audit events that belong to none. No organization can have it as its id."""
PROBE_ORG = "org_probe2222222"
"""Username with which edges probe the broker: an organization's id in form, which no tenant has."""
CHECKPOINT_LOG = "checkpoints"
"""The reserved id of the platform's log whose leaves are the checkpoints of all organizations' logs."""
_INVITATION = re.compile(r"inv_([a-z2-7]{12})_[a-z2-7]{16}\Z")
_TOKEN = re.compile(r"tok_([a-z2-7]{12})_[a-z2-7]{16}\Z")


def random_text(length: int) -> str:
    """``length`` characters of base32, 5 bits each."""
    return os.urandom(length).translate(_EVEN).decode()


def org_id() -> str:
    """``org_`` and 12 characters (60 bits); never the reserved :data:`PROBE_ORG`."""
    while (made := f"org_{random_text(12)}") == PROBE_ORG:
        pass
    return made


def deployment_id() -> str:
    """``dep_`` and 16 characters."""
    return f"dep_{random_text(16)}"


def local_username() -> str:
    """The opaque local part of a token identity's MQTT username: ``u`` and 15 characters (75 bits)."""
    return f"u{random_text(15)}"


def token_id(org: str) -> str:
    """``tok_``, the organization's 12 characters and 16 random ones.

    The organization is part of it because a refresh names nothing but the token: row-level security needs to know
    whose row to look for before it can be read.
    """
    return f"tok_{org.removeprefix('org_')}_{random_text(16)}"


def org_of_token(token: str) -> str | None:
    """The organization a token id belongs to, or None when it does not have the form of one."""
    match = _TOKEN.match(token)
    return f"org_{match.group(1)}" if match else None


def provider_id() -> str:
    """``idp_`` and 16 characters: an identity provider."""
    return f"idp_{random_text(16)}"


def sign_on_id() -> str:
    """``sso_`` and 16 characters: a way of single sign-on."""
    return f"sso_{random_text(16)}"


def invitation_id(org: str) -> str:
    """``inv_``, the organization's 12 characters and 16 random ones: who follows an invitation names nothing else."""
    return f"inv_{org.removeprefix('org_')}_{random_text(16)}"


def org_of_invitation(invitation: str) -> str | None:
    """The organization an invitation id belongs to, or None when it does not have the form of one."""
    match = _INVITATION.match(invitation)
    return f"org_{match.group(1)}" if match else None
