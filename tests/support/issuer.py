"""An OpenID Connect issuer on loopback: real keys, real tokens, and every way of misbehaving that we know."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

AUDIENCE = "cloudsignal-test"
CLIENT_ID = "dashboard"
CLIENT_SECRET = "marker-client-secret:marker/client+secret"
"""With characters that have a meaning in forms and in Basic authentication."""


@dataclass
class Issuer:
    """The issuer. ``mode`` is how it answers: honest, hang, drip, html, huge, redirect, secret, empty, down."""

    port: int = 0
    mode: str = "honest"
    keys: dict[str, Any] = field(default_factory=dict)
    asked: int = 0
    person: dict[str, Any] = field(default_factory=dict)
    """Claims of whoever is at the authorization endpoint; None takes one away."""
    signs: Callable[[dict[str, Any]], str] | None = None
    """Makes the ID token of the claims in some other way than honestly."""
    token_mode: str = "honest"
    """How the token endpoint answers: honest, hang, refuse, nothing."""
    public_client: bool = False
    secret_in_form: bool = False
    userinfo: dict[str, Any] | None = None
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    """What was asked for, by the code that was given for it; a code is taken once."""
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

    def authorize(self, query: str) -> str:
        """A person signs in at the authorization endpoint; returns where the browser is sent back to."""
        asked = dict(parse_qsl(query))
        code = f"code-{len(self.codes)}"
        self.codes[code] = asked
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state'], 'iss': self.url})}"

    def exchange(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        """The token endpoint, as strict as a good one: client, code, redirect URI and PKCE verifier have to fit."""
        if self.token_mode == "refuse":
            return 400, {"error": "invalid_grant"}
        asked = self.codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if asked is None or asked["code_challenge"] != challenge or asked["redirect_uri"] != form["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        if not self.public_client and self._secret(form, authorization) != CLIENT_SECRET:
            return 401, {"error": "invalid_client"}
        if self.token_mode == "nothing":
            return 200, {"access_token": "at", "token_type": "Bearer"}
        claims = self.claims(
            **{"aud": CLIENT_ID, "nonce": asked["nonce"], "auth_time": int(time.time()), **self.person}
        )
        token = self.signs(claims) if self.signs else self.sign(claims)
        return 200, {"access_token": "access", "token_type": "Bearer", "id_token": token}

    def sign(self, claims: dict[str, Any]) -> str:
        """An honest signature with the first key."""
        return jwt.encode(claims, self.keys["one"], "RS256", headers={"kid": "one"})

    def _secret(self, form: dict[str, str], authorization: str) -> str:
        if self.secret_in_form:
            return form.get("client_secret", "")
        decoded = base64.b64decode(authorization.removeprefix("Basic ") or "Og==").decode()
        return dict(parse_qsl(f"secret={decoded.partition(':')[2]}")).get("secret", "")


@contextmanager
def issuing() -> Iterator[Issuer]:
    """A running issuer with one RSA key called ``one``."""
    issuer = Issuer()
    issuer.add_rsa("one")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked += 1
            where = urlsplit(self.path)
            if where.path == "/authorize":
                self.send_response(302)
                self.send_header("Location", issuer.authorize(where.query))
                self.end_headers()
            elif where.path == "/userinfo":
                known = self.headers.get("Authorization") == "Bearer access" and issuer.userinfo is not None
                _json(self, 200 if known else 401, issuer.userinfo or {})
            else:
                _answer(self, issuer)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            if issuer.token_mode == "hang":
                issuer.stopped.wait(30)
                return
            form = {name: values[0] for name, values in parse_qs(body).items()}
            _json(self, *issuer.exchange(form, self.headers.get("Authorization", "")))

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


def _json(handler: BaseHTTPRequestHandler, status: int, document: dict[str, Any]) -> None:
    body = json.dumps(document).encode()
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def _answer(handler: BaseHTTPRequestHandler, issuer: Issuer) -> None:
    body = json.dumps(issuer.jwks()).encode()
    if handler.path.endswith("/openid-configuration"):
        document = {
            "issuer": issuer.url, "jwks_uri": f"{issuer.url}/keys", "authorization_endpoint": f"{issuer.url}/authorize",
            "token_endpoint": f"{issuer.url}/token", "userinfo_endpoint": f"{issuer.url}/userinfo",
        }  # fmt: skip
        if issuer.secret_in_form:
            document["token_endpoint_auth_methods_supported"] = ["client_secret_post"]  # type: ignore[assignment]
        body = json.dumps(document).encode()
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
