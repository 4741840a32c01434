"""The local certificate authority: TLS from the first start, without asking anybody.

One CA per data folder and two leaves for the edge: EC, and RSA for clients of TLS 1.2 that know no ECDSA suites.
Clients verify against ``ca.pem``. A real installation brings its own chain with ``EDGE_TLS_CERT`` and ``EDGE_TLS_KEY``,
and this module then does nothing.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_DAYS = 3650
LEAF_DAYS = 90
RENEW_DAYS = 30
"""A leaf with fewer days left than this is made anew; so is a CA with fewer than ``LEAF_DAYS``."""

RSA_BITS = 2048

BACKDATE = dt.timedelta(hours=1)
"""Certificates start an hour early, for devices whose clock is a little slow."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Paths of the files, all PEM."""

    ca: Path
    """For clients."""
    cert: Path
    """Leaf, then CA: what the edge presents. The RSA leaf stands beside it (:func:`rsa_beside`)."""
    key: Path
    renewed: bool
    """Whether this call made a new leaf."""


LeafKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def rsa_beside(path: Path) -> Path:
    """The path of the RSA counterpart of a certificate or key: ``edge.pem`` has ``edge.rsa.pem``."""
    return path.with_name(f"{path.stem}.rsa{path.suffix}")


def ensure(folder: Path, *, names: Sequence[str] = (), now: dt.datetime | None = None) -> Chain:
    """Make what is missing, about to expire, or lacks one of ``names`` (DNS names or IP addresses).

    ``localhost``, ``127.0.0.1``, ``::1`` and this machine's host name are always among the names. Renewal keeps the
    leaf's key, so that no moment exists in which certificate and key do not match.
    """
    now = now or dt.datetime.now(dt.UTC)
    wanted = list(dict.fromkeys(["localhost", "127.0.0.1", "::1", *_host_names(), *names]))
    ca_path, ca_key_path = folder / "ca.pem", folder / "ca.key"
    cert_path, key_path = folder / "edge.pem", folder / "edge.key"
    ca_key, ca_is_new = _key(ca_key_path)
    ca = None if ca_is_new else _read(ca_path)
    if ca is None or ca.public_key() != ca_key.public_key() or _days_left(ca, now) < LEAF_DAYS:
        ca = _make_ca(ca_key, now)
        _write(ca_path, ca.public_bytes(Encoding.PEM), 0o644)
    signer = _Signer(ca, ca_key, wanted, now)
    renewed = [
        _ensure_leaf(cert_path, _key(key_path)[0], signer),
        _ensure_leaf(rsa_beside(cert_path), _rsa_key(rsa_beside(key_path)), signer),
    ]
    return Chain(ca=ca_path, cert=cert_path, key=key_path, renewed=any(renewed))


def days_left(path: Path, now: dt.datetime | None = None) -> float | None:
    """Days until the first certificate in ``path`` ends; None when there is no readable one."""
    certificate = _read(path)
    return None if certificate is None else _days_left(certificate, now or dt.datetime.now(dt.UTC))


def _make_ca(key: ec.EllipticCurvePrivateKey, now: dt.datetime) -> x509.Certificate:
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "CloudSignal"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"CloudSignal local CA ({socket.gethostname()[:32]})"),
        ]
    )
    builder = _builder(name, name, key.public_key(), now, CA_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(sign=True), critical=True)
    return builder.sign(key, hashes.SHA256())


@dataclass(frozen=True, slots=True)
class _Signer:
    """The CA and the names that all leaf certificates of one call share."""

    ca: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    names: Sequence[str]
    now: dt.datetime


def _ensure_leaf(path: Path, key: LeafKey, signer: _Signer) -> bool:
    """Make the leaf in ``path`` unless it is good; returns whether it was made."""
    leaf = _read(path)
    if (
        leaf is not None
        and leaf.public_key() == key.public_key()
        and leaf.issuer == signer.ca.subject
        and _signed_by(leaf, signer.ca)
        and _days_left(leaf, signer.now) >= RENEW_DAYS
        and set(signer.names) <= set(_names(leaf))
    ):
        return False
    leaf = _make_leaf(key, signer)
    _write(path, leaf.public_bytes(Encoding.PEM) + signer.ca.public_bytes(Encoding.PEM), 0o644)
    return True


def _make_leaf(key: LeafKey, signer: _Signer) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CloudSignal edge")])
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key())
    names = x509.SubjectAlternativeName([_general(name) for name in signer.names])
    return (
        _builder(subject, signer.ca.subject, key.public_key(), signer.now, LEAF_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(issuer, critical=False)
        .add_extension(names, critical=False)
        .sign(signer.key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
    now: dt.datetime,
    days: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=sign, crl_sign=sign, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in names]


def _host_names() -> list[str]:
    """This machine's name and, when it has one, its full name; only what may stand in a certificate."""
    found = [socket.gethostname().lower(), socket.getfqdn().lower()]
    return [name for name in found if name and len(name) <= 253 and name.isascii() and " " not in name]


def _signed_by(leaf: x509.Certificate, ca: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(ca)
    except Exception:
        return False
    return True


def _days_left(certificate: x509.Certificate, now: dt.datetime) -> float:
    return (certificate.not_valid_after_utc - now).total_seconds() / 86_400


def _read(path: Path) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return None


def _key(path: Path) -> tuple[ec.EllipticCurvePrivateKey, bool]:
    """The private key in ``path`` and whether it was made just now."""
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return key, False
    except (OSError, ValueError):
        pass
    key = ec.generate_private_key(ec.SECP256R1())
    _write(path, _pem(key), 0o600)
    return key, True


def _rsa_key(path: Path) -> rsa.RSAPrivateKey:
    """The private key in ``path``, made now if there is none."""
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
        if isinstance(key, rsa.RSAPrivateKey):
            return key
    except (OSError, ValueError):
        pass
    key = rsa.generate_private_key(public_exponent=65_537, key_size=RSA_BITS)
    _write(path, _pem(key), 0o600)
    return key


def _pem(key: LeafKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, data: bytes, mode: int) -> None:
    """Write so that a reader sees the old file or the new one, never half of one."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
    draft.replace(path)
