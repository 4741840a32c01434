"""Eclipse Paho for Python, with its thread and its own reconnecting."""

from __future__ import annotations

from typing import Any

import paho.mqtt.client as mqtt
from line import OPTIONS, commands, say
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

V5 = OPTIONS["version"] == 5
client = mqtt.Client(
    mqtt.CallbackAPIVersion.VERSION2,
    client_id=OPTIONS["client_id"],
    protocol=mqtt.MQTTv5 if V5 else mqtt.MQTTv311,
    clean_session=None if V5 else OPTIONS["clean"],
)
client.username_pw_set(OPTIONS["username"], OPTIONS["password"])
client.tls_set(OPTIONS["ca"])
if OPTIONS.get("will"):
    client.will_set(OPTIONS["will"], b"gone", qos=1)


def connected(_: Any, __: Any, flags: Any, code: Any, ___: Any) -> None:
    if code.is_failure:
        say("refused", code=code.value)
    else:
        say("connected", present=bool(flags.session_present))


client.on_connect = connected
client.on_disconnect = lambda _, __, flags, code, ___: say(
    "disconnected", code=code.value if flags.is_disconnect_packet_from_server else 0
)
client.on_publish = lambda _, __, mid, code, ___: say("published", code=code.value)
client.on_subscribe = lambda _, __, mid, codes, ___: say("subscribed", code=codes[0].value)
client.on_message = lambda _, __, message: say("message", topic=message.topic, retain=bool(message.retain))


def do(command: dict[str, Any]) -> None:
    if command["do"] == "publish":
        client.publish(command["topic"], b"x", qos=1)
    elif command["do"] == "subscribe":
        client.subscribe(command["topic"], qos=1)


keep = None
if V5:
    keep = Properties(PacketTypes.CONNECT)
    keep.SessionExpiryInterval = 0 if OPTIONS["clean"] else 60
client.connect(
    OPTIONS["host"], OPTIONS["port"], 30, **({"clean_start": OPTIONS["clean"], "properties": keep} if V5 else {})
)
client.loop_start()
commands(do)
