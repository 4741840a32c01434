"""An OpenID Connect issuer on loopback: real keys, real tokens, and every way of misbehaving that we know."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

AUDIENCE = "cloudsignal-test"


@dataclass
class Issuer:
    """The issuer. ``mode`` is how it answers: honest, hang, drip, html, huge, redirect, secret, empty, down."""

    port: int = 0
    mode: str = "honest"
    keys: dict[str, Any] = field(default_factory=dict)
    asked: int = 0
    stopped: Event = field(default_factory=Event)

    @property
    def url(self) -> str:
        """The issuer's name."""
        return f"http://127.0.0.1:{self.port}"

    def add_rsa(self, kid: str, *, bits: int = 2048) -> None:
        """A further RSA key."""
        self.keys[kid] = rsa.generate_private_key(public_exponent=65537, key_size=bits)

    def add_ec(self, kid: str) -> None:
        """A further P-256 key."""
        self.keys[kid] = ec.generate_private_key(ec.SECP256R1())

    def public_pem(self, kid: str) -> bytes:
        """A public key as text, as anybody can have it."""
        return bytes(self.keys[kid].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    def jwks(self) -> dict[str, Any]:
        """The public keys."""
        found = []
        for kid, key in self.keys.items():
            algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
            found.append({**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig"})
        return {"keys": found}

    def claims(self, **changes: Any) -> dict[str, Any]:
        """What an honest token says; a change to None takes a claim away."""
        now = int(time.time())
        found = {
            "iss": self.url, "aud": AUDIENCE, "sub": "user-1", "email": "ada@example.com",
            "email_verified": True, "iat": now, "exp": now + 300, **changes,
        }  # fmt: skip
        return {name: value for name, value in found.items() if value is not None}

    def token(self, kid: str = "one", *, header: dict[str, Any] | None = None, **changes: Any) -> str:
        """A signed token."""
        key = self.keys[kid]
        algorithm = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
        return jwt.encode(self.claims(**changes), key, algorithm, headers={"kid": kid, **(header or {})})


@contextmanager
def issuing() -> Iterator[Issuer]:
    """A running issuer with one RSA key called ``one``."""
    issuer = Issuer()
    issuer.add_rsa("one")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked += 1
            _answer(self, issuer)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    issuer.port = server.server_address[1]
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield issuer
    finally:
        issuer.stopped.set()
        server.shutdown()
        server.server_close()


def _answer(handler: BaseHTTPRequestHandler, issuer: Issuer) -> None:
    body = json.dumps(issuer.jwks()).encode()
    if handler.path.endswith("/openid-configuration"):
        body = json.dumps({"issuer": issuer.url, "jwks_uri": f"{issuer.url}/keys"}).encode()
    match issuer.mode:
        case "hang":
            issuer.stopped.wait(30)
            return
        case "drip":
            handler.send_response(200)
            handler.end_headers()
            while not issuer.stopped.wait(0.2):
                try:
                    handler.wfile.write(b" ")
                except OSError:
                    return
            return
        case "down":
            handler.send_error(500)
            return
        case "redirect":
            handler.send_response(302)
            handler.send_header("Location", "http://169.254.169.254/latest/meta-data/")
            handler.end_headers()
            return
        case "html":
            body = b"<html>not here</html>"
        case "huge":
            body = b'{"keys": [' + b" " * 400_000 + b"]}"
        case "secret":
            body = json.dumps({"keys": [{"kty": "oct", "kid": "one", "k": "c2VjcmV0"}]}).encode()
        case "empty":
            body = b'{"keys": {}}'
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
