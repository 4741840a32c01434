"""The WSGI environment (PEP 3333) of a request, with the visitor's address behind trusted proxies."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes

from cloudsignal.front.asgi import Headers, Scope

FORWARDED_FOR = b"x-forwarded-for"


def kept(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The headers passed to WSGI: none with an underscore or other character that WSGI confuses with a hyphen.

    In a WSGI environment ``X_Forwarded_For`` is ``X-Forwarded-For``: what a proxy sets is what anybody can add to.
    """
    return [(name, value) for name, value in headers if name.replace(b"-", b"").isalnum()]


def forwarded_for(headers: Headers) -> str:
    """All ``X-Forwarded-For`` headers as one, in their order: some proxies add to it, some add another one."""
    return ",".join(value.decode("latin1") for name, value in headers if name == FORWARDED_FOR)


def environ(scope: Scope, headers: Headers, address: str, body: bytes) -> dict[str, Any]:
    """The environment for a request whose body has been read; ``address`` is the visitor's."""
    raw = scope.get("raw_path")
    path = unquote_to_bytes(raw) if raw else scope["path"].encode()
    host, port = scope.get("server") or ("localhost", "80")
    found: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": path.decode("latin1"),
        "QUERY_STRING": scope.get("query_string", b"").decode("latin1"),
        "SERVER_PROTOCOL": f"HTTP/{scope.get('http_version', '1.1')}",
        "SERVER_NAME": str(host),
        "SERVER_PORT": str(port or 80),
        "REMOTE_ADDR": address,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    found |= _headers(headers)
    return found


def _headers(headers: Headers) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        if name in {b"content-length", b"transfer-encoding", FORWARDED_FOR}:
            continue  # the body is whole, and the address is known
        key = name.decode("latin1").upper().replace("-", "_")
        if key != "CONTENT_TYPE":
            key = f"HTTP_{key}"
        text = value.decode("latin1")
        if key in found:  # RFC 9110 s5.3, and RFC 9113 s8.2.3 for cookies
            text = f"{found[key]}{'; ' if key == 'HTTP_COOKIE' else ','}{text}"
        found[key] = text
    return found
