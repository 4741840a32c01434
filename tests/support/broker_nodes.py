"""Several broker nodes on loopback: Mosquittos behind TLS that want a client certificate, to freeze, kill and start."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from pathlib import Path

from cloudsignal.edge.brokers import MOSQUITTO_ACL, mosquitto_tls_config
from cloudsignal.edge.brokers.limits import Tls
from tests.support.parts import Authority, Process, wait_for
from tests.support.ports import free_port

SBIN = "/usr/sbin:/usr/bin:/usr/local/sbin:/opt/homebrew/sbin:/opt/homebrew/bin"


class TlsNode(Process):
    """One Mosquitto behind TLS, with the generated configuration."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        folder.mkdir(parents=True)
        super().__init__(folder / "broker.log")
        self.port = free_port()
        self.label = f"localhost (127.0.0.1:{self.port})"
        crt, key = authority.issue(folder / "server", "localhost")
        (folder / "db").mkdir()
        acl = folder / "acl"
        acl.write_text(MOSQUITTO_ACL)
        acl.chmod(0o600)
        self.config = folder / "mosquitto.conf"
        tls = Tls(authority.file, crt, key)
        text = mosquitto_tls_config(host="127.0.0.1", port=self.port, tls=tls, acl_file=acl, data=folder / "db")
        self.config.write_text(text + ("user root\n" if os.geteuid() == 0 else ""))

    def start(self) -> None:
        """Start it and wait until it listens."""
        program = shutil.which("mosquitto", path=SBIN)
        assert program, "mosquitto is not installed"
        self.launch([program, "-c", str(self.config)])
        wait_for(self.listens, what="mosquitto")

    def listens(self) -> bool:
        """Whether its port is open."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def freeze(self) -> None:
        """Let it answer nothing from now on, with every connection open."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)


def upstream_url(authority: Authority, folder: Path, nodes: list[TlsNode], *, signer: Authority | None = None) -> str:
    """``MQTT_UPSTREAM_URL`` with a client certificate of ``signer``, who is the brokers' authority unless given."""
    crt, key = (signer or authority).issue(folder / "client", "edge")
    listed = ",".join(f"localhost:{node.port}" for node in nodes)
    return f"mqtts://{listed}?ca={authority.file}&cert={crt}&key={key}"
