"""TLS contexts: 1.2 or newer, AEAD with forward secrecy only, certificates chosen by SNI and reloaded in place."""

from __future__ import annotations

import logging
import re
import ssl
from pathlib import Path

from cloudsignal.config import Upstream
from cloudsignal.secrets.pki import rsa_beside

logger = logging.getLogger("cloudsignal.edge.transport.certificates")

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL"
"""For TLS 1.2; every suite of TLS 1.3 is AEAD with forward secrecy anyway."""

_ORGANIZATION = re.compile(r"(org_[a-z2-7]{12})(?:\..*)?")
_FILE = re.compile(r"org_[a-z2-7]{12}\.crt")


class CertificateError(ValueError):
    """A certificate or key cannot be loaded; the text names the file."""


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """A context with the platform's floor: no option of the caller can lower it.

    An RSA certificate beside the first one (``NAME.rsa.crt``, :func:`cloudsignal.secrets.pki.rsa_beside`) serves the
    clients of TLS 1.2 that know no ECDSA suites; all others get the first, which costs the edge less.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    # One ticket is enough to resume with; each costs a tenth of a handshake.
    context.num_tickets = 1
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    pairs = [(certificate, key)]
    if rsa_beside(certificate).exists():
        pairs.append((rsa_beside(certificate), rsa_beside(key)))
    for chain, secret in pairs:
        try:
            context.load_cert_chain(chain, secret)
        except (OSError, ssl.SSLError) as error:
            raise CertificateError(f"{chain} with {secret} cannot be used: {error}") from error
    return context


def upstream_context(upstream: Upstream) -> ssl.SSLContext:
    """TLS towards the broker: its certificate is always verified."""
    context = ssl.create_default_context(cafile=upstream.ca_file or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if upstream.cert_file:
        context.load_cert_chain(upstream.cert_file, upstream.key_file or None)
    return context


class Certificates:
    """The default certificate and those of organizations that brought their own, ``ORG.crt`` and ``ORG.key``.

    :meth:`reload` puts new contexts in place; established sessions keep theirs. A file that cannot be loaded leaves
    what was there, so that a half-written renewal takes nothing down.
    """

    def __init__(self, certificate: Path, key: Path, folder: Path | None) -> None:
        self._certificate, self._key, self._folder = certificate, key, folder
        self.default = server_context(certificate, key)
        self.default.sni_callback = self._choose
        self._named: dict[str, ssl.SSLContext] = {}
        self._current = self.default
        self._seen: dict[Path, tuple[int, int]] = {}
        self._load_named()
        self._seen = self._stamps()

    def reload(self) -> None:
        """Load every file again."""
        self._seen = self._stamps()
        try:
            self._current = server_context(self._certificate, self._key)
        except CertificateError as error:
            logger.warning("%s; the old certificate stays", error)
        self._load_named()

    def reload_if_changed(self) -> bool:
        """Reload when a file has another time or size than when it was read last."""
        if self._stamps() == self._seen:
            return False
        self.reload()
        return True

    def _choose(self, connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        match = _ORGANIZATION.fullmatch((name or "").lower())
        chosen = self._named.get(match[1], self._current) if match else self._current
        if chosen is not self.default:
            connection.context = chosen

    def _load_named(self) -> None:
        named: dict[str, ssl.SSLContext] = {}
        for certificate in self._files():
            org = certificate.stem
            try:
                named[org] = server_context(certificate, certificate.with_suffix(".key"))
            except CertificateError as error:
                logger.warning("%s", error)
                if org in self._named:
                    named[org] = self._named[org]
        self._named = named

    def _files(self) -> list[Path]:
        if self._folder is None or not self._folder.is_dir():
            return []
        return sorted(path for path in self._folder.iterdir() if _FILE.fullmatch(path.name))

    def _stamps(self) -> dict[Path, tuple[int, int]]:
        stamps: dict[Path, tuple[int, int]] = {}
        for path in (self._certificate, self._key, *self._files()):
            key = self._key if path == self._certificate else path.with_suffix(".key")
            for file in (path, key, rsa_beside(path), rsa_beside(key)):
                try:
                    status = file.stat()
                except OSError:
                    continue
                stamps[file] = (status.st_mtime_ns, status.st_size)
        return stamps
