"""The API client of the CLI: one request at a time, every failure as a message with an exit code."""

from __future__ import annotations

import ipaddress
import re
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import click
import httpx

from cloudsignal import __version__
from cloudsignal.cli.outcome import CommandError, Exit
from cloudsignal.errors import quoted

TIMEOUT = httpx.Timeout(60, connect=10)
"""Seconds. Comparing two large policies takes a while; connecting does not."""
PATIENCE = 120
"""Seconds that a command waits at most, all in all, because the server asks it to (429)."""
PAGE = 200
STRANGE = "is it a CloudSignal, and of this version?"
_KEY = re.compile(r"[!-~]{1,200}")


class RefusedError(CommandError):
    """The server refused a request."""

    def __init__(self, message: str, exit_code: Exit, *, status: int, code: str) -> None:
        super().__init__(message, exit_code)
        self.status = status
        self.problem = code


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer of the server."""

    body: Any
    etag: str


class Server:
    """A CloudSignal server and the key for its API. ``ca`` holds certificates to trust instead of the usual ones."""

    def __init__(self, url: str, key: str = "", *, ca: Path | None = None, hint: str = "") -> None:
        self.url = checked_url(url)
        self.hint = hint
        """Advice for a refused key."""
        headers = {"User-Agent": f"cloudsignal/{__version__}", "Accept": "application/json"}
        if key:
            if not _KEY.fullmatch(key):
                raise CommandError("the API key contains characters that no key has", Exit.USAGE)
            headers["Authorization"] = f"Bearer {key}"
        # Plain HTTP is for this machine alone, so no proxy may carry it elsewhere.
        own = self.url.startswith("http://")
        self._http = httpx.Client(
            base_url=self.url, headers=headers, timeout=TIMEOUT, verify=_trust(ca, own=own), trust_env=not own
        )
        self._waited = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **query: Any) -> Any:
        """The body of a GET; parameters that are None or empty are left out."""
        return self.send("GET", path, query=query).body

    def post(self, path: str, body: Any = None) -> Any:
        """The body of a POST's answer."""
        return self.send("POST", path, {} if body is None else body).body

    def delete(self, path: str) -> Any:
        """The body of a DELETE's answer."""
        return self.send("DELETE", path).body

    def delete_each(self, paths: Iterable[str]) -> tuple[list[Any], CommandError | None]:
        """Send several DELETEs; returns the answers and the errors. A refused one does not stop the others."""
        done, failed = [], list[CommandError]()
        for path in paths:
            try:
                done.append(self.delete(path))
            except RefusedError as error:
                failed.append(error)
            except CommandError as error:  # the next would fail alike
                failed.append(error)
                break
        words = "\n".join(map(str, failed))
        return done, CommandError(words, failed[0].code) if failed else None

    def rows(self, path: str, **query: Any) -> list[Any]:
        """The objects of a list that comes whole, or of its first page."""
        return _rows(self.get(path, **query), path)

    def pages(self, path: str, *, limit: int, **query: Any) -> Iterator[Any]:
        """At most ``limit`` rows of a list, page after page."""
        cursor = None
        while limit > 0:
            found = self.get(path, cursor=cursor, limit=min(limit, PAGE), **query)
            rows = _rows(found, path)
            yield from rows[:limit]
            limit -= len(rows)
            cursor = found["next_cursor"]
            if cursor is None:
                return

    def download(self, path: str, **query: Any) -> bytes:
        """The bytes of a file. Raises like :meth:`send`."""
        got = self._ask("GET", path, query=query)
        if got.is_success and not got.headers.get("Content-Type", "").startswith("application/json"):
            return got.content
        self._read(got)
        raise CommandError(f"{self.url} does not answer with a file", Exit.SERVER)

    def send(
        self, method: str, path: str, body: Any = None, *, query: Mapping[str, Any] | None = None, if_match: str = ""
    ) -> Answer:
        """Send a request. Raises :class:`RefusedError`, or :class:`CommandError` when there is no CloudSignal there."""
        return self._read(self._ask(method, path, body, query=query, if_match=if_match))

    def _ask(
        self, method: str, path: str, body: Any = None, *, query: Mapping[str, Any] | None = None, if_match: str = ""
    ) -> httpx.Response:
        asked = {name: value for name, value in (query or {}).items() if value not in {None, ""}}
        headers = {"If-Match": if_match} if if_match else {}
        while True:
            try:
                got = self._http.request(method, path, json=body, params=asked, headers=headers)
            except httpx.HTTPError as error:
                raise CommandError(f"{self.url} cannot be reached: {_why(error)}", Exit.SERVER) from None
            if got.status_code != httpx.codes.TOO_MANY_REQUESTS or not self._wait(got):
                return got

    def _wait(self, got: httpx.Response) -> bool:
        """Wait as long as the server asks, unless that is too long."""
        text = got.headers.get("Retry-After", "")
        seconds = max(int(text), 1) if text.isascii() and text.isdigit() and len(text) < 6 else 5
        if self._waited + seconds > PATIENCE:
            return False
        self._waited += seconds
        click.echo(f"the server asks to wait {seconds} s", err=True)
        time.sleep(seconds)
        return True

    def _read(self, got: httpx.Response) -> Answer:
        body = _json(got)
        if got.is_success and isinstance(body, dict):
            return Answer(body, got.headers.get("ETag", ""))
        if got.is_redirect:
            location = plain(got.headers.get("Location"))
            raise CommandError(f"{self.url} leads to {location}; use that address", Exit.SERVER)
        if not isinstance(body, dict) or "detail" not in body:
            raise CommandError(
                f"{self.url} does not answer as a CloudSignal does (status {got.status_code})", Exit.SERVER
            )
        raise self._refusal(got.status_code, body)

    def _refusal(self, status: int, body: dict[str, Any]) -> RefusedError:
        lines = [str(body["detail"])]
        errors = body.get("errors")
        if isinstance(errors, list) and len(errors) > 1:
            lines += [f"  {each.get('message')}" for each in errors[:20] if isinstance(each, dict)]
        if status == httpx.codes.UNAUTHORIZED and self.hint:
            lines.append(self.hint)
        if status == httpx.codes.PRECONDITION_FAILED:
            lines.append("Nothing was deployed. Run `cloudsignal acl plan` again.")
        code = str(body.get("code", ""))
        return RefusedError("\n".join(plain(line) for line in lines), _exit(status, code), status=status, code=code)


def checked_url(text: str) -> str:
    """The address of a server, without a slash at the end. Plain HTTP is for this machine only."""
    url = text.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        raise CommandError(f"{quoted(text)} is not an address; write https://signal.example.com", Exit.USAGE) from None
    if parts.scheme not in {"https", "http"} or not host or parts.username or parts.query or parts.fragment:
        raise CommandError(f"{quoted(text)} is not a server's address; write https://signal.example.com", Exit.USAGE)
    if parts.scheme == "http" and not _loopback(host):
        raise CommandError(f"{url} would send your key in the clear; only https:// leaves this machine", Exit.USAGE)
    return url


def plain(text: object) -> str:
    """Text of others, safe to show: what would steer a terminal is written out, such as ``\\x1b``."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in str(text))


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _trust(ca: Path | None, *, own: bool) -> ssl.SSLContext | bool:
    if ca is None:
        # Without TLS there is nobody to trust, and reading the certificates takes longer than most commands.
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if own else True
    try:
        return ssl.create_default_context(cafile=str(ca))
    except (OSError, ssl.SSLError) as error:
        raise CommandError(f"{ca} is no file of certificates (PEM): {error}", Exit.USAGE) from None


def _why(error: httpx.HTTPError) -> str:
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({inner.verify_message}); name a private CA with --ca FILE"
        inner = inner.__cause__ or inner.__context__
    if isinstance(error, httpx.TimeoutException):
        return "it did not answer in time"
    return str(error) or type(error).__name__


class Body(dict[str, Any]):
    """A JSON object of an answer. A missing member is reported as a fault of the server, not as a traceback."""

    def __missing__(self, name: str) -> Any:
        raise CommandError(f"the server's answer has no {quoted(name)}; {STRANGE}", Exit.SERVER)


def _rows(found: Any, path: str) -> list[Any]:
    rows = found["data"]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise CommandError(f"the server's answer to {path} is no list of objects; {STRANGE}", Exit.SERVER)
    return rows


def _json(got: httpx.Response) -> Any:
    try:
        return got.json(object_hook=Body)
    except (ValueError, RecursionError):
        return None


def _exit(status: int, code: str) -> Exit:
    if status in {401, 403}:
        return Exit.REFUSED
    if status == httpx.codes.TOO_MANY_REQUESTS or status >= httpx.codes.INTERNAL_SERVER_ERROR:
        return Exit.SERVER
    if status in {400, 422} and not code.startswith("policy_"):
        return Exit.USAGE
    return Exit.FAILED
