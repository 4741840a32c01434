"""aiomqtt, which leaves reconnecting to the program: this one tries again after a second, as its manual shows."""

from __future__ import annotations

import asyncio
import json
import sys

import aiomqtt
from line import OPTIONS, say
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

V5 = OPTIONS["version"] == 5


def made() -> aiomqtt.Client:
    """A client for one connection."""
    keep = None
    if V5:
        keep = Properties(PacketTypes.CONNECT)
        keep.SessionExpiryInterval = 0 if OPTIONS["clean"] else 60
    return aiomqtt.Client(
        OPTIONS["host"], OPTIONS["port"], username=OPTIONS["username"], password=OPTIONS["password"],
        identifier=OPTIONS["client_id"],
        protocol=aiomqtt.ProtocolVersion.V5 if V5 else aiomqtt.ProtocolVersion.V311,
        tls_params=aiomqtt.TLSParameters(ca_certs=OPTIONS["ca"]),
        will=aiomqtt.Will(OPTIONS["will"], b"gone", qos=1) if OPTIONS.get("will") else None,
        properties=keep,
        **({"clean_start": OPTIONS["clean"]} if V5 else {"clean_session": OPTIONS["clean"]}),
    )  # fmt: skip


def code_of(error: Exception) -> int:
    """The reason code that an exception of the library carries; 0 when it carries none."""
    code = getattr(error, "rc", None)
    return int(getattr(code, "value", code) or 0)


async def main() -> None:
    """Connect again and again; carry out commands while connected."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    current: list[aiomqtt.Client] = []

    async def obey() -> None:
        while text := await reader.readline():
            command = json.loads(text)
            try:
                if command["do"] == "publish":
                    await current[0].publish(command["topic"], b"x", qos=1)
                    say("published", code=0)
                elif command["do"] == "subscribe":
                    codes = await current[0].subscribe(command["topic"], qos=1)
                    say("subscribed", code=int(getattr(codes[0], "value", codes[0])))
            except aiomqtt.MqttError as error:
                say("published" if command["do"] == "publish" else "subscribed", code=code_of(error) or -1)
        sys.exit(0)

    obeying = asyncio.create_task(obey())
    while not obeying.done():
        entered = False
        try:
            async with made() as client:
                entered = True
                current[:] = [client]
                say("connected", present=False)
                async for message in client.messages:
                    say("message", topic=str(message.topic), retain=bool(message.retain))
        except aiomqtt.MqttError as error:
            say("disconnected" if entered else "refused", code=code_of(error))
        await asyncio.sleep(1)


asyncio.run(main())
