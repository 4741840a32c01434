"""A device: a paho client that records what it was told. paho is the client most people have."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

Answer = TypeVar("Answer")
Value = TypeVar("Value")

VERSIONS = {"3.1.1": MQTTProtocolVersion.MQTTv311, "5": MQTTProtocolVersion.MQTTv5}


class Device:
    """One connected client; a context manager. Waiting fails after ten seconds."""

    def __init__(
        self, host: str, port: int, ca: Path, username: str, password: str, *, version: str, client_id: str
    ) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self.connected: ReasonCode | None = None
        self.published: dict[int, ReasonCode] = {}
        self.subscribed: dict[int, list[ReasonCode]] = {}
        self._changed = threading.Condition()
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=VERSIONS[version])
        self.client.username_pw_set(username, password)
        self.client.tls_set(str(ca), tls_version=ssl.PROTOCOL_TLS_CLIENT)
        self.client.on_connect = lambda client, data, flags, code, properties: self._note("connected", code)
        self.client.on_publish = lambda client, data, mid, code, properties: self._keep(self.published, mid, code)
        self.client.on_subscribe = lambda client, data, mid, codes, properties: self._keep(self.subscribed, mid, codes)
        self.client.on_message = lambda client, data, message: self._message(message)
        self.client.connect(host, port)
        self.client.loop_start()

    def __enter__(self) -> Device:
        assert self.wait(lambda: self.connected), "no CONNACK came"
        assert not self.connected.is_failure, str(self.connected)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def publish(self, topic: str, payload: bytes = b"hello") -> ReasonCode:
        """Publish at QoS 1; returns the reason code of the PUBACK."""
        mid = self.client.publish(topic, payload, qos=1).mid
        code = self.wait(lambda: self.published.get(mid))
        assert code is not None, f"no PUBACK for {topic}"
        return code

    def subscribe(self, topic_filter: str) -> ReasonCode:
        """Subscribe at QoS 1; returns the reason code of the SUBACK."""
        _, mid = self.client.subscribe(topic_filter, qos=1)
        codes = self.wait(lambda: self.subscribed.get(mid or 0))
        assert codes, f"no SUBACK for {topic_filter}"
        return codes[0]

    def received(self, topic: str, payload: bytes) -> bool:
        """Wait for one message."""
        return bool(self.wait(lambda: (topic, payload) in self.messages))

    def wait(self, question: Callable[[], Answer], *, seconds: float = 30.0) -> Answer:
        """Ask again at every change until the answer is true or time is up; returns the last answer."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not (answer := question()) and time.monotonic() < deadline:
                self._changed.wait(0.1)
            return answer

    def _note(self, name: str, value: object) -> None:
        with self._changed:
            setattr(self, name, value)
            self._changed.notify_all()

    def _keep(self, where: dict[int, Value], mid: int, value: Value) -> None:
        with self._changed:
            where[mid] = value
            self._changed.notify_all()

    def _message(self, message: paho.MQTTMessage) -> None:
        with self._changed:
            self.messages.append((message.topic, message.payload))
            self._changed.notify_all()
