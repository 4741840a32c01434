"""``cloudsignal doctor`` and several broker nodes: it says when they are no cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudsignal.cli.checks.result import Level
from cloudsignal.cli.checks.services import check_upstream
from tests.support.broker_nodes import TlsNode, upstream_url
from tests.support.parts import Authority
from tests.support.ports import free_port


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tls")


@pytest.fixture
def node(tmp_path: Path, authority: Authority) -> Iterator[TlsNode]:
    """A Mosquitto with a second listener, so that two addresses share its sessions."""
    made = TlsNode(tmp_path / "one", authority)
    text = made.config.read_text()
    made.second = free_port()  # type: ignore[attr-defined]
    listener = "".join(
        f"{line}\n" for line in text.splitlines() if line.split(" ")[0] in {"cafile", "certfile", "keyfile"}
    )
    made.config.write_text(f"{text}listener {made.second} 127.0.0.1\n{listener}require_certificate true\n")  # type: ignore[attr-defined]
    made.start()
    yield made
    made.stop()


def said(url: str) -> list[str]:
    return [result.text for result in check_upstream({"MQTT_UPSTREAM_URL": url}) if result.level is not Level.FINE]


def test_two_addresses_that_share_sessions_are_a_cluster(node: TlsNode, tmp_path: Path, authority: Authority) -> None:
    url = upstream_url(authority, tmp_path, [node])
    assert said(url.replace(f"localhost:{node.port}", f"localhost:{node.port},localhost:{node.second}")) == []  # type: ignore[attr-defined]


def test_two_mosquitto_are_told_to_be_no_cluster(node: TlsNode, tmp_path: Path, authority: Authority) -> None:
    other = TlsNode(tmp_path / "two", authority)
    other.start()
    try:
        [text] = said(upstream_url(authority, tmp_path, [node, other]))
    finally:
        other.stop()
    assert text.startswith(other.label)
    assert "does not share sessions with the first node" in text
