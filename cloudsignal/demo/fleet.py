"""The simulated fleet: every device is a real MQTT client over TLS, with a short-lived credential of its own.

One process, one thread of paho per device. Devices live through restarts of any part: they reconnect with a pause, ask
for a new credential when theirs has ended, and refresh it before it does.
"""

from __future__ import annotations

import heapq
import logging
import random
import signal
import ssl
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import django
import paho.mqtt.client as mqtt
from django.db import Error as DatabaseError
from django.db import close_old_connections
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from cloudsignal.demo.cast import SAMPLES, Device, Publish, Subscribe
from cloudsignal.demo.credentials import CredentialSource, CredentialsUnavailable
from cloudsignal.demo.seed import RENEW_SECONDS, read_places, write_guide
from cloudsignal.errors import DomainError

logger = logging.getLogger("cloudsignal.demo.fleet")

VERSIONS = {"3.1.1": MQTTProtocolVersion.MQTTv311, "5": MQTTProtocolVersion.MQTTv5}
KEEPALIVE = 30
RETRY_FIRST, RETRY_MOST = 1.0, 20.0
TICK = 0.2
RENEW_AGAIN = 60.0


def main(arguments: list[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT."""
    places = read_places("Run the demo's fleet.", arguments)
    django.setup()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    Fleet(places.host, places.port, places.ca or None, renew=lambda: write_guide(places)).run(stop)
    return 0


@dataclass(order=True)
class Due:
    """The next action of a device and its time."""

    at: float
    number: int
    simulated: SimulatedDevice = field(compare=False)
    action: Publish | Subscribe | None = field(compare=False)
    """None: look after the connection and the credential."""


class Fleet:
    """All devices of all sample organizations."""

    def __init__(self, host: str, port: int, ca: str | None, *, renew: Callable[[], object]) -> None:
        """``renew`` writes the guide anew; called every :data:`RENEW_SECONDS`."""
        self.renew = renew
        self.renewed_at = time.monotonic()
        context = ssl.create_default_context(cafile=ca)
        sources = [(sample, CredentialSource(sample.people[0][0], sample.name)) for sample in SAMPLES]
        self.simulated = [
            SimulatedDevice(device, source, host, port, context, prefix=sample.slug)
            for sample, source in sources
            for device in sample.devices
        ]

    def run(self, stop: threading.Event) -> None:
        """Run the devices' actions when they are due, spread over time, until ``stop`` is set."""
        now = time.monotonic()
        queue: list[Due] = []
        for number, simulated in enumerate(self.simulated):
            heapq.heappush(queue, Due(now + number * 0.05, len(queue), simulated, None))
            for action in simulated.device.actions:
                if action.every:
                    heapq.heappush(queue, Due(now + 5 + random.uniform(0, action.every), len(queue), simulated, action))  # noqa: S311
        while not stop.is_set():
            now = time.monotonic()
            while queue and queue[0].at <= now:
                due = heapq.heappop(queue)
                pause = due.simulated.act(due.action)
                heapq.heappush(queue, Due(time.monotonic() + pause, due.number, due.simulated, due.action))
            self.renew_if_due()
            stop.wait(TICK)
        for simulated in self.simulated:
            simulated.close()

    def renew_if_due(self) -> None:
        """Rewrite the guide when it is due; a failure is retried a minute later."""
        if time.monotonic() - self.renewed_at < RENEW_SECONDS:
            return
        try:
            close_old_connections()
            self.renew()
            self.renewed_at = time.monotonic()
        except (DatabaseError, DomainError, OSError) as error:
            logger.warning("the guide keeps its old credentials: %s", error)
            self.renewed_at += RENEW_AGAIN


class SimulatedDevice:
    """A simulated device: its connection, credential and message counter."""

    def __init__(
        self, device: Device, source: CredentialSource, host: str, port: int, context: ssl.SSLContext, *, prefix: str
    ) -> None:
        self.device = device
        self.source = source
        self.host, self.port = host, port
        self.count = 0
        self.retry = RETRY_FIRST
        self.refused = False
        self.client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"{prefix}-{device.username}",
            protocol=VERSIONS[device.version],
            reconnect_on_failure=False,
        )
        self.client.tls_set_context(context)
        self.client.on_connect = self._on_connect
        self.client.on_disconnect = self._on_disconnect
        self.online = False
        """Of our own: paho takes a client that the server has sent a DISCONNECT for connected (MQTT 5 s3.14)."""
        self.running = False

    def act(self, action: Publish | Subscribe | None) -> float:
        """Perform one action; returns the seconds until it is due again."""
        if action is None:
            return self._look_after()
        if self.online:
            self.count += 1
            if isinstance(action, Publish):
                text = f"{self.device.username} {self.count}"
                topic = action.topic.replace("{n}", str(self.count % 100))
                self.client.publish(topic, text, qos=action.qos, retain=action.retain)
            else:
                self.client.subscribe(action.topic, action.qos)
        return (action.every or 60.0) * random.uniform(0.9, 1.1)  # noqa: S311

    def close(self) -> None:
        """Disconnect from the edge."""
        self.client.disconnect()
        self.client.loop_stop()

    def _look_after(self) -> float:
        """Connect when disconnected, and refresh the credential when it is due."""
        try:
            if self.online:
                self.source.refresh_if_due(self.device)
                self.retry = RETRY_FIRST
                return 5.0
            credential = self.source.credential(self.device, anew=self.refused)
        except CredentialsUnavailable as error:
            logger.warning("no credential for %s: %s", self.device.username, error)
            return self._later()
        if self.running:
            self.client.loop_stop()
            self.running = False
        self.refused = False
        self.client.username_pw_set(credential.username, credential.password)
        try:
            if self.client.connect(self.host, self.port, KEEPALIVE) != MQTTErrorCode.MQTT_ERR_SUCCESS:
                return self._later()
        except OSError as error:
            logger.info("%s cannot connect: %s", self.device.username, error)
            return self._later()
        self.client.loop_start()
        self.running = True
        return self._later()

    def _later(self) -> float:
        self.retry = min(self.retry * 2, RETRY_MOST)
        return self.retry * random.uniform(0.75, 1.25)  # noqa: S311

    def _on_connect(
        self, client: mqtt.Client, userdata: object, flags: object, reason: ReasonCode, properties: object
    ) -> None:
        """Subscribe anew: no session is kept between connections."""
        self.refused = reason.is_failure
        self.online = not reason.is_failure
        if reason.is_failure:
            logger.warning("%s was refused: %s", self.device.username, reason)
            return
        for action in self.device.actions:
            if isinstance(action, Subscribe) and action.every is None:
                client.subscribe(action.topic, action.qos)

    def _on_disconnect(
        self, client: mqtt.Client, userdata: object, flags: object, reason: ReasonCode, properties: object
    ) -> None:
        self.online = False


if __name__ == "__main__":
    sys.exit(main())
