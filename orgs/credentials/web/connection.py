"""How a client connects here: the commands a person copies, and the certificate they need."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from django.conf import settings

from cloudsignal.web.certificate import local_ca


@dataclass(frozen=True, slots=True)
class Connection:
    """Where and how clients of this installation sign in."""

    host: str
    port: int
    wss_port: int
    ca_name: str
    """File name of the local CA in the commands; empty when clients trust the certificate anyway."""

    def publish(self, username: str, password: str, topic: str = "hello/world") -> str:
        """A ``mosquitto_pub`` command, one option group a line."""
        return self._command("mosquitto_pub", username, password, topic, ' -m "hello"')

    def subscribe(self, username: str, password: str, topic: str = "hello/#") -> str:
        """A ``mosquitto_sub`` command that shows topics and messages."""
        return self._command("mosquitto_sub", username, password, topic, " -v")

    def _command(self, program: str, username: str, password: str, topic: str, tail: str) -> str:
        trust = f"--cafile {self.ca_name}" if self.ca_name else "--tls-use-os-certs"
        lines = [
            f"{program} -V mqttv5 -h {self.host} -p {self.port}",
            f"  {trust}",
            f"  -u {shlex.quote(username)}",
            f"  -P {shlex.quote(password)}",
            f"  -q 1 -t {shlex.quote(topic)}{tail}",
        ]
        return " \\\n".join(lines)


def connection() -> Connection:
    """The connection of this installation, as configured."""
    return Connection(
        host=settings.MQTT_HOST,
        port=settings.MQTT_PORT,
        wss_port=settings.WSS_PORT,
        ca_name="cloudsignal-ca.pem" if local_ca() else "",
    )
