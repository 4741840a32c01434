"""What a command line asks for when a person signs it in."""

from __future__ import annotations

import base64
import hashlib

from tests.support.calling import Answer, Caller

BACK = "http://127.0.0.1:54321/callback"
VERIFIER = "correct-horse-battery-staple-0123456789-ABCDEFG"
LOGIN, LOGOUT = "/v2/command-line/login", "/v2/command-line/logout"


def challenge(verifier: str = VERIFIER) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


def asked(**changes: str) -> dict[str, str]:
    """The parameters of an authorization request, as the program sends them."""
    return {
        "response_type": "code", "code_challenge_method": "S256", "code_challenge": challenge(), "redirect_uri": BACK,
        "state": "s" * 32, "machine": "laptop",
    } | changes  # fmt: skip


def redeem(code: str, verifier: str = VERIFIER, redirect_uri: str = BACK) -> Answer:
    return Caller().post(LOGIN, {"code": code, "code_verifier": verifier, "redirect_uri": redirect_uri})
