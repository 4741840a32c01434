"""The visitor's address through real reverse proxies: what a client writes into headers never counts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cloudsignal.front.app import THREADS
from cloudsignal.proxies import visitor
from tests.front.conftest import running
from tests.support.attacks_web import where, without_a_body
from tests.support.reverse_proxies import PROXIES, proxy

VISITOR = "127.9.9.9"
"""Where requests come from: an address of this machine that is not the proxy's."""
FORGED = "203.0.113.9"
FORGERIES = [
    [("X_Forwarded_For", FORGED)],
    [("X-Forwarded_For", FORGED), ("X_Forwarded-For", FORGED)],
    [("X-Forwarded-For", FORGED)],
    [("X-Forwarded-For", FORGED), ("X-Forwarded-For", f"{FORGED}, 127.0.0.1")],
    [("X-Forwarded-For", f"{FORGED},"), ("X_Forwarded_For", f"{FORGED}, 127.0.0.1")],
    [("X.Forwarded.For", FORGED), ("X_Real_IP", FORGED), ("X-Real-IP", FORGED), ("Forwarded", f"for={FORGED}")],
    [("Remote_Addr", FORGED), ("REMOTE-ADDR", FORGED)],
    [("Connection", "X-Forwarded-For"), ("X_Forwarded_For", FORGED)],
]


@pytest.fixture(scope="module")
def behind() -> Iterator[str]:
    """The front, told that 127.0.0.1 is a proxy."""
    with running("127.0.0.1/32") as url:
        yield url


def seen(url: str, headers: list[tuple[str, str]]) -> str:
    """Which address the application is told."""
    with httpx.Client(transport=httpx.HTTPTransport(local_address=VISITOR)) as client:
        answer = client.get(f"{url}/v2/show", headers=headers)
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert FORGED not in {value for name, value in shown.items() if "FORWARDED_FOR" in name}
    return str(shown["REMOTE_ADDR"])


@pytest.mark.parametrize("name", PROXIES)
def test_behind_a_proxy_the_address_is_the_one_that_the_proxy_saw(name: str, behind: str, tmp_path: Path) -> None:
    with proxy(name, where(behind)[1], tmp_path) as url:
        assert seen(url, []) == VISITOR
        assert [seen(url, headers) for headers in FORGERIES] == [VISITOR] * len(FORGERIES)


@pytest.mark.parametrize("name", PROXIES)
def test_bodies_that_do_not_come_through_a_proxy_switch_nothing_off(name: str, behind: str, tmp_path: Path) -> None:
    with proxy(name, where(behind)[1], tmp_path) as url, without_a_body(url, 4 * THREADS, begin=b"{"):
        assert seen(url, []) == VISITOR
        assert httpx.get(f"{url}/healthz").status_code == 200


def test_without_a_proxy_nothing_is_believed(front: str, behind: str) -> None:
    for url in (front, behind):
        assert [seen(url, headers) for headers in FORGERIES] == [VISITOR] * len(FORGERIES)


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("198.51.100.1", "203.0.113.9", "198.51.100.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "198.51.100.7, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "198.51.100.7, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "198.51.100.7, unknown", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.2, 10.0.0.3", "10.0.0.1"),
        ("::ffff:10.0.0.1", "::ffff:203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "2001:db8::9", "2001:db8::9"),
    ],
)
def test_the_first_address_from_the_right_that_is_no_proxy_counts(peer: str, forwarded: str, found: str) -> None:
    assert visitor(peer, forwarded, "10.0.0.0/8, 2001:db8:ffff::/48") == found
