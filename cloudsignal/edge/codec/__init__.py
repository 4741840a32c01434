"""MQTT 3.1.1 and 5.0 packets: bytes to dataclasses and back. Strict, small, no I/O.

Only the packets whose content the edge must read or change have a class. Everything is checked to the letter of the
specification; the first fault raises :class:`ProtocolError` with the MQTT 5 reason code that names it.
"""

from cloudsignal.edge.codec.connect import Connect, Will, decode_connect, encode_connect
from cloudsignal.edge.codec.packets import (
    Acknowledgement,
    Connack,
    Disconnect,
    Publish,
    Subscribe,
    Subscription,
    Unsubscribe,
    acknowledgement,
    connack,
    decode_acknowledgement,
    decode_connack,
    decode_disconnect,
    decode_publish,
    decode_suback,
    decode_subscribe,
    decode_unsubscribe,
    disconnect,
    encode_publish,
    encode_subscribe,
    encode_unsubscribe,
    suback,
    unsuback,
)
from cloudsignal.edge.codec.primitives import ProtocolError, Reader, packet, varint
from cloudsignal.edge.codec.properties import Properties, Property
from cloudsignal.edge.codec.reasons import Kind, Reason

__all__ = [
    "Acknowledgement",
    "Connack",
    "Connect",
    "Disconnect",
    "Kind",
    "Properties",
    "Property",
    "ProtocolError",
    "Publish",
    "Reader",
    "Reason",
    "Subscribe",
    "Subscription",
    "Unsubscribe",
    "Will",
    "acknowledgement",
    "connack",
    "decode_acknowledgement",
    "decode_connack",
    "decode_connect",
    "decode_disconnect",
    "decode_publish",
    "decode_suback",
    "decode_subscribe",
    "decode_unsubscribe",
    "disconnect",
    "encode_connect",
    "encode_publish",
    "encode_subscribe",
    "encode_unsubscribe",
    "packet",
    "suback",
    "unsuback",
    "varint",
]
