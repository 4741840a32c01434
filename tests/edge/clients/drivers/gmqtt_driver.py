"""gmqtt, with its own reconnecting. It has no callback for acknowledged publishes: nothing is reported of those."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from typing import Any

import gmqtt
from gmqtt.mqtt import constants
from gmqtt.mqtt.handler import MQTTConnectError
from line import OPTIONS, say

V5 = OPTIONS["version"] == 5


def message(_: Any, topic: str, __: bytes, ___: int, properties: dict[str, Any]) -> int:
    say("message", topic=topic, retain=bool(properties.get("retain")))
    return 0


async def main() -> None:
    """Connect, and carry out commands."""
    keep = {"session_expiry_interval": 60} if V5 and not OPTIONS["clean"] else {}
    will = gmqtt.Message(OPTIONS["will"], b"gone", qos=1) if OPTIONS.get("will") else None
    client = gmqtt.Client(OPTIONS["client_id"], clean_session=OPTIONS["clean"], will_message=will, **keep)
    client.set_auth_credentials(OPTIONS["username"], OPTIONS["password"])
    client.on_connect = lambda _, flags, __, ___: say("connected", present=bool(flags & 1))
    client.on_disconnect = lambda _, packet, exc=None: say("disconnected", code=packet[0] if packet else 0)
    client.on_message = message
    client.on_subscribe = lambda _, __, codes, ___: say("subscribed", code=codes[0])
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        await client.connect(
            OPTIONS["host"], OPTIONS["port"], ssl=ssl.create_default_context(cafile=OPTIONS["ca"]),
            version=constants.MQTTv50 if V5 else constants.MQTTv311,
        )  # fmt: skip
    except MQTTConnectError as error:
        say("refused", code=error._code)
    while text := await reader.readline():
        command = json.loads(text)
        if command["do"] == "publish":
            client.publish(command["topic"], b"x", qos=1)
        elif command["do"] == "subscribe":
            client.subscribe(command["topic"], qos=1)


asyncio.run(main())
