"""The public listener speaks TLS 1.2 and newer, with forward secrecy and AEAD only, and nothing else."""

from __future__ import annotations

import socket
import ssl

import pytest

from tests.support.system import Stack

pytestmark = pytest.mark.stack


def failures(stack: Stack) -> int:
    with stack.admin() as admin:
        row = admin.execute("SELECT coalesce(sum(count), 0) FROM audit_event WHERE kind = 'tls_failed'").fetchone()
    return int(row[0]) if row else 0


def context(stack: Stack) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(stack.ca))
    made.set_ciphers("ALL:@SECLEVEL=0")
    return made


def handshake(stack: Stack, made: ssl.SSLContext) -> tuple[str, str]:
    with (
        socket.create_connection((stack.host, stack.mqtts_port), timeout=10) as raw,
        made.wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        cipher = tls.cipher()
        assert cipher is not None
        return tls.version() or "", cipher[0]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_are_spoken(stack: Stack, version: ssl.TLSVersion) -> None:
    made = context(stack)
    made.minimum_version = made.maximum_version = version
    spoken, cipher = handshake(stack, made)
    assert spoken == version.name.replace("_", ".")
    assert "GCM" in cipher or "POLY1305" in cipher
    assert version is ssl.TLSVersion.TLSv1_3 or cipher.startswith("ECDHE")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_older_versions_are_refused_and_audited(stack: Stack, version: ssl.TLSVersion) -> None:
    before = failures(stack)
    made = context(stack)
    made.minimum_version = made.maximum_version = version
    with pytest.raises((ssl.SSLError, ConnectionError)):
        handshake(stack, made)
    stack.eventually(lambda: failures(stack) > before, what="the refused handshake in the audit")


def test_a_client_that_knows_only_rsa_suites_connects(stack: Stack) -> None:
    made = context(stack)
    made.maximum_version = ssl.TLSVersion.TLSv1_2
    made.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    assert handshake(stack, made) == ("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256")


@pytest.mark.parametrize("cipher", ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA", "ECDHE-RSA-AES256-SHA384"])
def test_suites_without_forward_secrecy_or_aead_are_refused(stack: Stack, cipher: str) -> None:
    made = context(stack)
    made.maximum_version = ssl.TLSVersion.TLSv1_2
    made.set_ciphers(f"{cipher}:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        handshake(stack, made)


def test_plaintext_on_the_tls_port_is_refused_and_audited(stack: Stack) -> None:
    before = failures(stack)
    connect = bytes.fromhex("100d00044d5154540402003c000161")
    with socket.create_connection((stack.host, stack.mqtts_port), timeout=10) as raw:
        raw.sendall(connect)
        raw.settimeout(15)
        try:
            answer = raw.recv(100)
        except ConnectionError:
            answer = b""
    assert not answer.startswith(b"\x20"), "a CONNACK came over plaintext"
    stack.eventually(lambda: failures(stack) > before, what="the plaintext attempt in the audit")
