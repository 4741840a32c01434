"""What the parts of a session share: its state, and what they tell the session when a packet ends or changes it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from acl.policy import Identity
from audit.kinds import AuthReason
from cloudsignal.edge.audit.events import AuditSink, Origin
from cloudsignal.edge.codec import Connack, Connect, Properties, Property
from cloudsignal.edge.session.account import Account
from cloudsignal.edge.session.memo import SESSION_BYTES, Purse
from cloudsignal.edge.session.mountpoint import Mount
from cloudsignal.edge.session.organization import Organization
from cloudsignal.wire.credential import ClaimValue

CONNECT_MAX = 80 * 1024
"""Largest first packet, in bytes: nobody has signed in yet. There is room for the largest will (64 KiB)."""


class Phase(Enum):
    """How far a connection has come."""

    NEW = auto()
    SIGNING_IN = auto()
    """CONNECT has arrived; somebody must call :meth:`Session.welcome` or :meth:`Session.refuse`."""
    CONNECTING = auto()
    """CONNECT is on its way to the broker."""
    LIVE = auto()
    CLOSED = auto()


@dataclass(frozen=True, slots=True)
class Grant:
    """Who has signed in, and until when."""

    org: Organization
    username: str
    client_id: str
    """As the client knows it; made by the edge when the client sent none."""
    token_id: str
    expires_at: int
    """Seconds since the epoch; 0 for a static credential."""
    claims: Mapping[str, ClaimValue]


@dataclass(slots=True)
class Asked:
    """One filter of a SUBSCRIBE on its way to the broker, or of a live subscription."""

    topic_filter: bytes
    """As the client names it."""
    options: int
    """The options byte as forwarded (MQTT 5 s3.8.3.1)."""
    rule: str = ""
    refusal: int | None = None
    """The edge's own refusal; ``None`` when the broker is asked."""
    wanted: int = 0
    """The options byte as the client sent it."""
    identifier: int = 0
    """Subscription Identifier (MQTT 5 s3.8.2.1.2); 0 for none."""


class Context(Account):
    """The state of one client connection, and what its parts ask of it."""

    __slots__ = (
        "_early",
        "at_broker",
        "broker_keep_alive",
        "client_packet_limit",
        "connect",
        "cuts",
        "ended",
        "expires_at",
        "grant",
        "heard_at",
        "identity",
        "mount",
        "opened_at",
        "ousted",
        "outdated",
        "owed",
        "own_pings",
        "packet_limit",
        "phase",
        "pinged_at",
        "purse",
        "receive_maximum",
        "refusal",
        "session_expiry",
        "shedding",
        "to_broker",
        "to_client",
        "token_id",
        "unread",
        "upstream_password",
        "will_bytes",
        "will_sent",
    )

    mount: Mount
    """Of the organization; like ``org``, ``identity`` and ``judge`` it is there once there is a ``grant``."""
    identity: Identity

    def __init__(self, origin: Origin, sink: AuditSink, *, node: str = "", upstream_password: str = "") -> None:
        super().__init__(origin, sink, node)
        self.grant: Grant | None = None
        """Who has signed in; ``None`` before."""
        self.upstream_password = upstream_password
        self.phase = Phase.NEW
        self.refusal: AuthReason | None = None
        """Why its CONNECT was refused."""
        self.ended = False
        """Both sides are to be closed once what is queued has been written."""
        self.unread = self.owed = self.shedding = False
        """More was received, from the client or the broker, than one turn may work off: call :meth:`client_received` or
        :meth:`broker_received` again, with nothing. ``shedding``: the client is so far behind that QoS 0
        messages to it are dropped."""
        self.to_client: list[bytes] = []
        self.to_broker: list[bytes] = []
        self.cuts: tuple[int, ...] = ()
        """How many parts of ``to_client`` go out before what follows begins a TLS record or frame of its own."""
        self.connect = Connect(version=4, client_id="")
        self.token_id = ""
        self.expires_at = self.session_expiry = 0
        self.packet_limit = CONNECT_MAX  # of the organization from CONNACK on
        self.client_packet_limit = 1 << 30
        self.receive_maximum = 65_535
        """QoS 2 messages of the client that may be unfinished at a time, as the broker's CONNACK says."""
        self.opened_at = self.heard_at = self.pinged_at = self.connected_at
        self.own_pings = 0
        self.broker_keep_alive = 0
        """Seconds of silence after which the broker ends the session (Server Keep Alive); 0: it bears any."""
        self.will_bytes = 0
        """Room kept for a retained will."""
        self.will_sent = False
        """Whether the broker publishes the will once the connection is gone."""
        self.outdated = self.at_broker = False
        """A rule has expired since subscriptions and will were judged; the broker may hold a session of this one, for
        CONNECT was sent and not refused."""
        self._early = b""
        """What the client has sent behind its CONNECT."""
        self.ousted = False
        """The broker ended it, so that another may have its client ID."""
        self.purse = Purse(SESSION_BYTES)
        """What it may remember of topics."""

    @property
    def live(self) -> bool:
        """Whether the client has its CONNACK and is not gone."""
        return self.phase is Phase.LIVE

    @property
    def wants_reasons(self) -> bool:
        """Whether reason strings may be sent with acknowledgements (MQTT 5 s3.1.2.11.7)."""
        return self.version == 5 and self.connect.properties.number(Property.REQUEST_PROBLEM_INFORMATION, 1) == 1

    def org_id(self) -> str:
        """The organization it has signed in to; empty before."""
        return "" if self.grant is None else self.org.id

    def answer(self, packet: bytes) -> None:
        """Send CONNACK or SUBACK, and let nothing that follows share its TLS record or WebSocket frame.

        MQTT.js calls back only after it has handed on every packet of a record: a message beside the answer would come
        before anybody listens for it.
        """
        self.to_client.append(packet)
        self.cuts += (len(self.to_client),)

    @abstractmethod
    def forget(self) -> None:
        """A rule has expired: judge everything anew from here on."""

    @abstractmethod
    def adopt(self, *, claims: Mapping[str, ClaimValue] | None = None) -> None:
        """Take over the policy now in force, or new claims."""

    @abstractmethod
    def broker_answered(self, connack: Connack) -> None:
        """The broker's CONNACK."""

    @abstractmethod
    def broker_disconnects(self, code: int) -> None:
        """DISCONNECT from the broker."""

    @abstractmethod
    def client_leaves(self, code: int, raw: bytes, properties: Properties) -> None:
        """DISCONNECT from the client."""

    @abstractmethod
    def invariant_broken(self, text: str) -> None:
        """Something that cannot happen did."""
