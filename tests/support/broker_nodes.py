"""Broker nodes on loopback: Mosquittos behind TLS that want a client certificate, and doors to them that misbehave."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import threading
import time
from contextlib import suppress
from pathlib import Path

from cloudsignal.edge import brokers
from tests.support.parts import Authority, Process, wait_for
from tests.support.ports import free_port

SBIN = "/usr/sbin:/usr/bin:/usr/local/sbin:/opt/homebrew/sbin:/opt/homebrew/bin"


class TlsNode(Process):
    """One Mosquitto behind TLS, with the configuration that the command writes."""

    def __init__(self, folder: Path, authority: Authority | None = None) -> None:
        (folder / "db").mkdir(parents=True)
        super().__init__(folder / "broker.log")
        self.folder = folder
        self.authority = authority or Authority(folder / "tls")
        self.port = free_port()
        self.label = f"localhost (127.0.0.1:{self.port})"
        crt, key = self.authority.issue(folder / "server", "localhost")
        options = ["--ca", self.authority.file, "--cert", crt, "--key", key, "--data", folder / "db", "--out", folder]
        listen = ["mosquitto", "--listen", f"127.0.0.1:{self.port}"]
        assert brokers.main([*listen, *map(str, options)]) == 0
        (folder / "cloudsignal.acl").chmod(0o600)
        self.config = folder / "mosquitto.conf"
        self.config.write_text(self.config.read_text() + ("user root\n" if os.geteuid() == 0 else ""))

    def start(self) -> None:
        """Start the node and wait until it listens."""
        program = shutil.which("mosquitto", path=SBIN)
        assert program, "mosquitto is not installed"
        self.launch([program, "-c", str(self.config)])
        wait_for(self.listens, what="mosquitto")

    def listens(self) -> bool:
        """Whether the node's port is open."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def freeze(self) -> None:
        """Stop the node from answering, with every connection open."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen node go on."""
        os.kill(self.pid, signal.SIGCONT)


def upstream_url(authority: Authority, folder: Path, nodes: list[TlsNode], *, signer: Authority | None = None) -> str:
    """``MQTT_UPSTREAM_URL`` with a client certificate of ``signer``, who is the brokers' authority unless given."""
    crt, key = (signer or authority).issue(folder / "client", "edge")
    listed = ",".join(f"localhost:{node.port}" for node in nodes)
    return f"mqtts://{listed}?ca={authority.file}&cert={crt}&key={key}"


class Door:
    """A node of the broker at a port of its own: passes everything on to a Mosquitto, or does something else.

    ``does`` is what: ``pass``; ``swallow`` (accept and read nothing); ``close`` (after CONNECT); ``close once`` (then
    pass); ``strange`` (ask for a certificate of another authority); bytes (the answer to CONNECT; none is silence).
    """

    def __init__(self, folder: Path, behind: TlsNode) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.does: str | bytes = "pass"
        self.came = 0
        """Connections that the door was given."""
        self._behind = behind
        self._held: list[socket.socket] = []
        crt, key = behind.authority.issue(folder / "door", "localhost")
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(crt, key)
        self._strange = ssl.create_default_context(
            ssl.Purpose.CLIENT_AUTH, cafile=str(Authority(folder / "stranger").file)
        )
        self._strange.load_cert_chain(crt, key)
        self._strange.verify_mode = ssl.CERT_REQUIRED
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        """Close the door and every connection through it."""
        for one in (self._listening, *self._held):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection = self._listening.accept()[0]
                does = self.does
                if does == "close once":
                    self.does = "pass"
                self.came += 1
                self._held.append(connection)
                threading.Thread(target=self._serve, args=(connection, does), daemon=True).start()

    def _serve(self, connection: socket.socket, does: str | bytes) -> None:
        if does == "swallow":
            return
        with suppress(OSError):
            if does == "pass":
                inner = socket.create_connection(("127.0.0.1", self._behind.port))
                self._held.append(inner)
                threading.Thread(target=_relay, args=(inner, connection), daemon=True).start()
                _relay(connection, inner)
                return
            with (self._strange if does == "strange" else self._tls).wrap_socket(
                connection, server_side=True
            ) as secure:
                secure.recv(65_536)
                if isinstance(does, bytes):
                    secure.sendall(does)
                    while secure.recv(65_536):
                        time.sleep(0)


def _relay(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
