"""The AWS Common Runtime's MQTT 5 client, with its own reconnecting."""

from __future__ import annotations

import threading
from typing import Any

from awscrt import io, mqtt5
from line import OPTIONS, commands, say

tls = io.TlsContextOptions()
tls.override_default_trust_store_from_path(None, OPTIONS["ca"])
will = None
if OPTIONS.get("will"):
    will = mqtt5.PublishPacket(topic=OPTIONS["will"], payload=b"gone", qos=mqtt5.QoS.AT_LEAST_ONCE)
behavior = mqtt5.ClientSessionBehaviorType
client = mqtt5.Client(
    mqtt5.ClientOptions(
        host_name=OPTIONS["host"],
        port=OPTIONS["port"],
        tls_ctx=io.ClientTlsContext(tls),
        disable_metrics=OPTIONS.get("metrics") is not True,
        session_behavior=behavior.CLEAN if OPTIONS["clean"] else behavior.REJOIN_ALWAYS,
        connect_options=mqtt5.ConnectPacket(
            client_id=OPTIONS["client_id"], username=OPTIONS["username"], password=OPTIONS["password"], will=will,
            keep_alive_interval_sec=30, session_expiry_interval_sec=0 if OPTIONS["clean"] else 60,
        ),
        on_publish_callback_fn=lambda data: say(
            "message", topic=data.publish_packet.topic, retain=bool(data.publish_packet.retain)
        ),
        on_lifecycle_event_connection_success_fn=lambda data: say(
            "connected", present=bool(data.connack_packet.session_present)
        ),
        on_lifecycle_event_connection_failure_fn=lambda data: say(
            "refused", code=int(data.connack_packet.reason_code) if data.connack_packet else 0
        ),
        on_lifecycle_event_disconnection_fn=lambda data: say(
            "disconnected", code=int(data.disconnect_packet.reason_code) if data.disconnect_packet else 0
        ),
    )
)  # fmt: skip


def do(command: dict[str, Any]) -> None:
    if command["do"] == "publish":
        made = client.publish(mqtt5.PublishPacket(topic=command["topic"], payload=b"x", qos=mqtt5.QoS.AT_LEAST_ONCE))
        threading.Thread(target=published, args=(made,), daemon=True).start()
    elif command["do"] == "subscribe":
        made = client.subscribe(
            mqtt5.SubscribePacket([mqtt5.Subscription(topic_filter=command["topic"], qos=mqtt5.QoS.AT_LEAST_ONCE)])
        )
        threading.Thread(target=subscribed, args=(made,), daemon=True).start()


def published(made: Any) -> None:
    say("published", code=int(made.result().puback.reason_code))


def subscribed(made: Any) -> None:
    say("subscribed", code=int(made.result().reason_codes[0]))


client.start()
commands(do)
