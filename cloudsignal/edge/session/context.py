"""The state that the parts of a session share, and the calls with which they report events to the session."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from acl.policy import Identity
from audit.kinds import AuthReason
from cloudsignal.config import Upstream
from cloudsignal.edge.audit.events import AuditSink, Origin
from cloudsignal.edge.codec import Connack, Connect, Properties, Property
from cloudsignal.edge.session.account import Account
from cloudsignal.edge.session.memo import SESSION_BYTES, Purse
from cloudsignal.edge.session.mountpoint import Mount
from cloudsignal.edge.session.organization import Organization
from cloudsignal.edge.session.sent import Sent
from cloudsignal.wire.credential import ClaimValue

NO_UPSTREAM = Upstream()

CONNECT_MAX = 80 * 1024
"""Largest CONNECT, in bytes. The client has not signed in yet; the largest will (64 KiB) fits."""


class Phase(Enum):
    """Phase of a connection, from its first byte to its end."""

    NEW = auto()
    SIGNING_IN = auto()
    """CONNECT has arrived; somebody must call :meth:`Session.welcome` or :meth:`Session.refuse`."""
    CONNECTING = auto()
    """CONNECT has been sent to the broker, which has not answered yet."""
    LIVE = auto()
    CLOSED = auto()


@dataclass(frozen=True, slots=True)
class Grant:
    """The identity of a signed-in client, and when its credential expires."""

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
    """The state of one client connection, and the interface that its parts use."""

    __slots__ = (
        "_early",
        "at_broker",
        "broker_keep_alive",
        "broker_node",
        "client_packet_limit",
        "connect",
        "cut",
        "cuts",
        "declined",
        "declined_code",
        "ended",
        "expires_at",
        "grant",
        "heard_at",
        "identity",
        "may_remain",
        "mount",
        "opened_at",
        "ousted",
        "outdated",
        "owed",
        "own_pings",
        "packet_limit",
        "phase",
        "purse",
        "receive_maximum",
        "refusal",
        "sent",
        "session_expiry",
        "shedding",
        "to_broker",
        "to_client",
        "token_id",
        "unanswered",
        "unread",
        "upstream",
        "will_bytes",
        "will_kept",
        "will_sent",
    )

    mount: Mount
    """The organization's mountpoint; set together with ``grant``, like ``org``, ``identity`` and ``authorizer``."""
    identity: Identity

    def __init__(self, origin: Origin, sink: AuditSink, *, node: str = "", upstream: Upstream = NO_UPSTREAM) -> None:
        super().__init__(origin, sink, node)
        self.grant: Grant | None = None
        """Identity of the signed-in client; ``None`` before sign-in."""
        self.upstream = upstream
        self.phase = Phase.NEW
        self.refusal: AuthReason | None = None
        """Why the CONNECT was refused; ``None`` when it was not."""
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
        self.opened_at = self.heard_at = self.connected_at
        self.own_pings = 0
        self.broker_keep_alive = upstream.keep_alive
        """Seconds within which edge and broker hear from each other: as the edge asks for, or as the broker insists."""
        self.will_bytes = 0
        """Bytes reserved in the quota of retained messages for a retained will."""
        self.will_kept = self.will_sent = False
        """The edge still has all of the will, and not its topic alone; the broker publishes it once the connection is
        gone."""
        self.outdated = self.at_broker = False
        """A rule has expired since subscriptions and will were checked; the broker may hold a session of this one, for
        CONNECT was sent and not refused."""
        self.broker_node = ""
        """The node of the broker that the session is connected to, as people read it."""
        self.sent = Sent()
        self.declined = ""
        """The node's refusal, when another node may take the session; empty when it takes it, or has not answered."""
        self.declined_code = 0
        """The code of that node's CONNACK; 0 when it answered with none."""
        self.may_remain = False
        """Whether a node tried before may hold a session of this one."""
        self.cut = self.unanswered = False
        """That node has closed the connection and has not said why; a publish of MQTT 3.1.1 was not acknowledged during
        a split, and the client sends it again on its next connection."""
        self._early = b""
        """Bytes that the client has sent after its CONNECT, before CONNACK."""
        self.ousted = False
        """The broker has closed the session, perhaps because its client ID signed in elsewhere."""
        self.purse = Purse(SESSION_BYTES)
        """Budget, in bytes, of the topics that the session remembers."""

    @property
    def live(self) -> bool:
        """Whether the client has its CONNACK and the session has not ended."""
        return self.phase is Phase.LIVE

    @property
    def wants_reasons(self) -> bool:
        """Whether reason strings may be sent with acknowledgements (MQTT 5 s3.1.2.11.7)."""
        return self.version == 5 and self.connect.properties.number(Property.REQUEST_PROBLEM_INFORMATION, 1) == 1

    def org_id(self) -> str:
        """ID of the organization the session has signed in to; empty before sign-in."""
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
        """A rule has expired: check every following message again."""

    @abstractmethod
    def adopt(self, *, claims: Mapping[str, ClaimValue] | None = None) -> None:
        """Switch to the active policy, or to new claims."""

    @abstractmethod
    def broker_answered(self, connack: Connack) -> None:
        """Handle the CONNACK of the broker."""

    @abstractmethod
    def broker_disconnects(self, code: int) -> None:
        """Handle a DISCONNECT from the broker."""

    @abstractmethod
    def client_leaves(self, code: int, raw: bytes, properties: Properties) -> None:
        """Handle a DISCONNECT from the client."""

    @abstractmethod
    def invariant_broken(self, text: str) -> None:
        """End the session because an invariant is broken; report it as critical."""
