"""Fetch small documents from hosts that tenants name: bounded in time and size, public addresses only.

A tenant chooses the URL, so without a guard the control plane could be sent to its own database or to the metadata
service of its cloud. The host is resolved once, every address is checked, and the connection goes to the address that
was checked: a name that resolves differently the second time changes nothing. Redirects are not followed.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import socket
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from threading import BoundedSemaphore, local
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpcore
from django.conf import settings

SECONDS = 4.0
"""For the whole of it: look-up, connection, headers, body."""
BYTES_MAX = 256 * 1024

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_UNICAST = ipaddress.ip_network("2000::/3")
"""All of IPv6 that is given out to the internet (RFC 4291 s2.4); outside of it only NAT64 is looked at."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)
"""The upper half of an interface identifier that goes on with an IPv4 address (RFC 5214 s6.1)."""
_SPECIAL = tuple(
    map(
        ipaddress.ip_network,
        (
            "192.0.0.0/24",  # protocol assignments, NAT64 discovery, dummy addresses (RFC 6890)
            "192.88.99.0/24",  # relays of 6to4 (RFC 7526)
            "2001::/23",  # protocol assignments, Teredo, ORCHID, benchmarks (RFC 2928)
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4: an IPv4 address of anybody's choice (RFC 3056)
            "2620:4f:8000::/48",  # AS112
            "3fff::/20",  # documentation (RFC 9637)
        ),
    )
)
"""Networks that Python of one version or another takes for public."""


SLOTS = 8
"""Threads of a process that may wait for hosts that tenants name, of the 20 it has."""
_slots = BoundedSemaphore(SLOTS)
_own = local()


class FetchError(Exception):
    """The document could not be fetched; the message says why and may be shown to the tenant."""


@contextmanager
def slot() -> Iterator[None]:
    """Reserve a thread for a fetch; raises :class:`FetchError` when too many threads fetch already."""
    if getattr(_own, "slot", False):
        yield
        return
    if not _slots.acquire(blocking=False):
        raise FetchError("too many requests to identity providers right now; try again in a moment.")
    _own.slot = True
    try:
        yield
    finally:
        _own.slot = False
        _slots.release()


def get_json(url: str, *, bearer: str = "") -> Any:
    """The JSON document at ``url``, asked for with a bearer token if there is one; raises :class:`FetchError`."""
    headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {bearer}"} if bearer else {})
    status, body = _exchange("GET", url, headers)
    if status != 200:
        raise FetchError(f"{_host(url)} answered {status} instead of the document.")
    return _parsed(url, body)


def get_text(url: str) -> str:
    """The UTF-8 document at ``url``; raises :class:`FetchError`."""
    status, body = _exchange("GET", url, {"Accept": "*/*"})
    if status != 200:
        raise FetchError(f"{_host(url)} answered {status} instead of the document.")
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise FetchError(f"{_host(url)} answered something that is not text.") from None


def post_form(url: str, form: Mapping[str, str], *, basic: tuple[str, str] | None = None) -> tuple[int, Any]:
    """POST a form, with HTTP Basic credentials if given; returns the status and the JSON answer.

    Raises :class:`FetchError`, for an answer that is not JSON too.
    """
    headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
    if basic is not None:
        headers["Authorization"] = f"Basic {base64.b64encode(':'.join(basic).encode()).decode()}"
    status, body = _exchange("POST", url, headers, urlencode(form).encode())
    return status, _parsed(url, body)


def _exchange(method: str, url: str, headers: Mapping[str, str], content: bytes = b"") -> tuple[int, bytes]:
    check_url(url)
    backend = _Guarded(time.monotonic() + SECONDS)
    sent = [(name.encode(), value.encode()) for name, value in {**headers, "User-Agent": "CloudSignal"}.items()]
    if content:
        sent.append((b"Content-Length", str(len(content)).encode()))
    try:
        with (
            slot(),
            httpcore.ConnectionPool(ssl_context=_tls(), network_backend=backend, max_connections=1) as pool,
            pool.stream(method, url, headers=sent, content=content or None) as response,
        ):
            return response.status, _read(response.iter_stream(), url)
    except (httpcore.TimeoutException, TimeoutError):
        raise FetchError(f"{_host(url)} did not answer within {SECONDS:.0f} seconds.") from None
    except (httpcore.NetworkError, httpcore.ProtocolError, ssl.SSLError, OSError) as error:
        raise FetchError(f"{_host(url)} could not be reached: {type(error).__name__}.") from None


def _parsed(url: str, body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise FetchError(f"{_host(url)} answered something that is not JSON.") from None


def check_url(url: str) -> None:
    """Raise :class:`FetchError` unless ``url`` is an https URL without credentials (http only to named networks)."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise FetchError("The URL is malformed.") from None
    if not parts.hostname or parts.username or parts.password or parts.fragment or not url.isascii() or port == 0:
        raise FetchError("The URL must look like https://host/path, without a username.")
    if parts.scheme != "https" and not (parts.scheme == "http" and _named_network(parts.hostname)):
        raise FetchError("The URL must begin with https://.")


def is_reachable(address: Address) -> bool:
    """Whether a tenant may send us to ``address``: public, or in ``settings.PROVIDER_NETWORKS``.

    IPv6 can carry an IPv4 address in many forms. IPv4-mapped and -compatible ones, 6to4 and Teredo are refused whatever
    they carry; NAT64 under the well-known prefix, which hosts without IPv4 need, and ISATAP go by the address inside.
    """
    if any(address in network for network in _networks(settings.PROVIDER_NETWORKS)):
        return True
    if isinstance(address, ipaddress.IPv6Address):
        number = int(address)
        if address in _NAT64 or (number >> 32 & 0xFFFF_FFFF) in _ISATAP:
            return is_reachable(ipaddress.IPv4Address(number & 0xFFFF_FFFF)) and (
                address in _NAT64 or _is_public(address)
            )
        return address in _UNICAST and _is_public(address)
    return _is_public(address)


def _is_public(address: Address) -> bool:
    if any(address in network for network in _SPECIAL):
        return False
    return address.is_global and not address.is_multicast


def _read(chunks: Iterable[bytes], url: str) -> bytes:
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > BYTES_MAX:
            raise FetchError(f"{_host(url)} answered more than {BYTES_MAX} bytes.")
    return bytes(body)


def _host(url: str) -> str:
    return str(urlsplit(url).hostname)


def _named_network(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in _networks(settings.PROVIDER_NETWORKS))


@cache
def _networks(text: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip())


@cache
def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class _Guarded(httpcore.NetworkBackend):
    """A network backend that connects only to checked addresses and keeps one deadline for all operations."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise FetchError(f"{host} cannot be resolved.") from None
        addresses = [ipaddress.ip_address(entry[4][0]) for entry in found]
        if not addresses or not all(is_reachable(address) for address in addresses):
            raise FetchError(f"{host} has a private address; identity providers must be public.")
        stream = self._inner.connect_tcp(str(addresses[0]), port, timeout=_left(self._deadline))
        return _Bounded(stream, self._deadline)


class _Bounded(httpcore.NetworkStream):
    """A network stream whose reads and writes share one deadline, so that a slow host cannot hold a thread."""

    def __init__(self, inner: httpcore.NetworkStream, deadline: float) -> None:
        self._inner = inner
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, _left(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, _left(self._deadline))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Bounded(self._inner.start_tls(ssl_context, server_hostname, _left(self._deadline)), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout
    return left
