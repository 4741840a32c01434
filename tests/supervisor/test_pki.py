"""The local CA: what clients can verify, when it is renewed, what is kept."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest
from cryptography import x509

from cloudsignal.edge.transport.certificates import server_context
from cloudsignal.secrets import pki

NOW = dt.datetime.now(dt.UTC)


def serial(path: Path) -> int:
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


def handshake(chain: pki.Chain, name: str, *, ca: Path | None = None, ciphers: str = "") -> str:
    """Sign a TLS client in that expects ``name``; returns the TLS version or raises what the client raises.

    With ``ciphers`` it is a client of TLS 1.2, and the suite is returned.
    """
    server = server_context(chain.cert, chain.key)
    client = ssl.create_default_context(cafile=ca or chain.ca)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    if ciphers:
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        client.set_ciphers(ciphers)
    left, right = socket.socketpair()
    left.settimeout(10)
    right.settimeout(10)

    def serve() -> None:
        try:
            with server.wrap_socket(left, server_side=True) as wrapped:
                wrapped.recv(1)
        except OSError:
            left.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(right, server_hostname=name) as wrapped:
            return (wrapped.cipher() or ("",))[0] if ciphers else wrapped.version() or ""
    finally:
        right.close()
        thread.join()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1", socket.gethostname().lower(), "mqtt.example.com"])
def test_a_strict_client_accepts_every_name(tmp_path: Path, name: str) -> None:
    assert handshake(pki.ensure(tmp_path, names=["mqtt.example.com"]), name) == "TLSv1.3"


@pytest.mark.parametrize(
    ("ciphers", "chosen"),
    [
        ("ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256"),
        ("ECDHE-RSA-AES256-GCM-SHA384:AES128-SHA", "ECDHE-RSA-AES256-GCM-SHA384"),
        ("ECDHE-RSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305"),
        ("ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384"),
    ],
)
def test_a_client_of_tls_1_2_without_ecdsa_suites_gets_the_rsa_leaf_and_others_the_cheaper_one(
    tmp_path: Path, ciphers: str, chosen: str
) -> None:
    assert handshake(pki.ensure(tmp_path, names=["mqtt.example.com"]), "mqtt.example.com", ciphers=ciphers) == chosen


@pytest.mark.parametrize("cipher", ["AES128-GCM-SHA256", "ECDHE-RSA-AES128-SHA", "ECDHE-RSA-AES256-SHA384"])
def test_the_rsa_leaf_brings_no_suite_without_forward_secrecy_or_aead(tmp_path: Path, cipher: str) -> None:
    with pytest.raises(OSError, match=r"(?i)handshake|closed|reset|eof"):
        handshake(pki.ensure(tmp_path), "localhost", ciphers=cipher)


def test_a_client_refuses_another_name_and_another_ca(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    chain, other = pki.ensure(tmp_path / "one"), pki.ensure(tmp_path / "two")
    with pytest.raises(ssl.SSLCertVerificationError, match=r"[Hh]ostname"):
        handshake(chain, "other.example.com")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(chain, "localhost", ca=other.ca)


def test_nothing_changes_while_there_is_time(tmp_path: Path) -> None:
    first = pki.ensure(tmp_path, now=NOW)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    later = pki.ensure(tmp_path, now=NOW + dt.timedelta(days=pki.LEAF_DAYS - pki.RENEW_DAYS - 1))
    assert first.renewed
    assert not later.renewed
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_leaf_is_renewed_in_time_with_the_same_key_and_ca(tmp_path: Path) -> None:
    first = pki.ensure(tmp_path, now=NOW)
    before = (serial(first.cert), first.key.read_bytes(), first.ca.read_bytes())
    rsa = (serial(pki.rsa_beside(first.cert)), pki.rsa_beside(first.key).read_bytes())
    later = pki.ensure(tmp_path, now=NOW + dt.timedelta(days=pki.LEAF_DAYS - pki.RENEW_DAYS + 1))
    assert later.renewed
    assert serial(later.cert) != before[0]
    assert (later.key.read_bytes(), later.ca.read_bytes()) == before[1:]
    assert serial(pki.rsa_beside(later.cert)) != rsa[0]
    assert pki.rsa_beside(later.key).read_bytes() == rsa[1]


def test_a_new_name_makes_a_new_leaf(tmp_path: Path) -> None:
    pki.ensure(tmp_path)
    assert pki.ensure(tmp_path, names=["new.example.com"]).renewed
    assert not pki.ensure(tmp_path, names=["new.example.com"]).renewed


def test_damaged_files_are_made_anew(tmp_path: Path) -> None:
    for name in ("ca.pem", "ca.key", "edge.pem", "edge.key", "edge.rsa.pem", "edge.rsa.key"):
        pki.ensure(tmp_path)
        (tmp_path / name).write_text("damaged")
        assert handshake(pki.ensure(tmp_path), "localhost") == "TLSv1.3", name


def test_keys_are_closed_to_others(tmp_path: Path) -> None:
    pki.ensure(tmp_path)
    for name in ("ca.key", "edge.key", "edge.rsa.key"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_days_left_of_something_unreadable_is_unknown(tmp_path: Path) -> None:
    assert pki.days_left(tmp_path / "none.pem") is None
    chain = pki.ensure(tmp_path, now=NOW)
    assert pki.days_left(chain.cert, NOW) == pytest.approx(pki.LEAF_DAYS, abs=0.01)
