"""Broker nodes of one edge process: names resolved, which of them answer, and whose turn it is.

Everything of the edge that connects to the broker asks here for nodes, in the order in which to try them, and says how
it went. A node that failed is tried last for a while; when the while is over, one connection finds out for all.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import random
import socket
import ssl
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeVar

from cloudsignal.config import BROKERS_MAX, Address, Upstream
from cloudsignal.edge.transport.certificates import upstream_context

logger = logging.getLogger("cloudsignal.edge.broker.pool")

RESOLVE_EVERY = 30.0
"""Seconds after which names are resolved again."""

RESOLVE_AGAIN = 1.0
"""Seconds until a name that could not be resolved is tried again."""

RESOLVE_WITHIN = 2.0
"""Seconds for which the answer to a name is waited for."""

BACK_OFF, BACK_OFF_MAX = 1.0, 30.0
"""Seconds for which a node that failed is tried last: after the first failure, and at most."""

TRIAL = 2.0
"""Seconds that the connection which tries a failed node again may take before another one does."""

SHUTDOWN = 1.0
"""Seconds for which the end of TLS is waited for when a connection is closed."""

Protocol = TypeVar("Protocol", bound=asyncio.BaseProtocol)


class NoBrokerError(OSError):
    """No name of the broker could be resolved."""


@dataclass(frozen=True, slots=True)
class BrokerNode:
    """One node of the broker: a unix socket, or an address with the name that its certificate must carry."""

    host: str = ""
    ip: str = ""
    port: int = 0
    path: str = ""

    @property
    def label(self) -> str:
        """The node as people read it, e.g. ``broker.internal (10.0.0.5:8883)``."""
        if self.path:
            return self.path
        address = str(Address(self.ip, self.port))
        return address if self.host == self.ip else f"{self.host} ({address})"


class Reached(StrEnum):
    """Whether a node answers."""

    UNKNOWN = "unknown"
    REACHABLE = "reachable"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class NodeState:
    """The state of a node, since when (seconds since the epoch), and why it is unreachable."""

    reached: Reached = Reached.UNKNOWN
    since: float = 0.0
    why: str = ""


@dataclass(slots=True)
class _Known:
    state: NodeState = NodeState()
    ever_reached: bool = False
    failures: int = 0
    on_trial: bool = False
    """Whether one connection tries the node again."""
    bad_until: float = 0.0
    """On the monotonic clock: until then the node is tried last."""


class BrokerPool:
    """The nodes of one broker, as one edge process sees them."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.tls: ssl.SSLContext | None = None if upstream.path else upstream_context(upstream)
        self._known: dict[BrokerNode, _Known] = {}
        self._addresses: dict[Address, list[str]] = {}
        """The last good answer for each host."""
        self._lookups: dict[Address, asyncio.Task[list[str]]] = {}
        self._resolve_at: dict[Address, float] = {}
        self._unresolved: dict[Address, str] = {}
        self._nodes: list[BrokerNode] | None = None
        """The nodes in use, until addresses or what is known of nodes change."""
        self._begun = 0.0
        """Time of the first use of the nodes, on the monotonic clock."""
        self._too_many = 0
        self._turn = random.randrange(BROKERS_MAX)  # noqa: S311 - edges that start together begin at different nodes

    # --- which there are -----------------------------------------------------------------------------------------

    async def nodes(self) -> list[BrokerNode]:
        """Every node, as far as names can be resolved. Raises :class:`NoBrokerError` when there is none.

        Names are waited for at the start, and while there is no node at all; resolved again they are meanwhile.
        """
        now = time.monotonic()
        self._begun = self._begun or now
        for host in self.upstream.hosts:
            if now >= self._resolve_at.get(host, 0.0) and host not in self._lookups:
                self._look_up(host)
        new = [task for host, task in self._lookups.items() if host not in self._addresses]
        patience = RESOLVE_WITHIN if not self._listed() else self._begun + RESOLVE_WITHIN - now
        if new and patience > 0:
            await asyncio.wait(new, timeout=patience)
        found = list(self._listed())
        if not found:
            raise NoBrokerError(
                "; ".join(
                    f"{host.host} cannot be resolved: {self._unresolved.get(host, 'no answer in time')}"
                    for host in self.upstream.hosts
                )
            )
        return found

    @property
    def unresolved(self) -> dict[str, str]:
        """Names that lead to no node, as they were written, and why."""
        return {
            str(host): f"its name cannot be resolved: {why}"
            for host, why in self._unresolved.items()
            if host not in self._addresses
        }

    def _look_up(self, host: Address) -> None:
        if _is_literal(host.host):
            self._addresses[host] = [host.host]
            self._nodes = None
            self._resolve_at[host] = float("inf")
            return
        task = asyncio.get_running_loop().create_task(_resolve(host))
        self._lookups[host] = task
        task.add_done_callback(lambda done: self._looked_up(host, done))

    def _looked_up(self, host: Address, task: asyncio.Task[list[str]]) -> None:
        del self._lookups[host]
        error: BaseException | None = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            self._addresses[host] = task.result()
            self._nodes = None
            self._unresolved.pop(host, None)
        else:
            why = str(error) or type(error).__name__
            if host not in self._unresolved:
                kept = "; the addresses known before stay in use" if host in self._addresses else ""
                logger.warning("the broker's name %s cannot be resolved: %s%s", host.host, why, kept)
            self._unresolved[host] = why
        self._resolve_at[host] = time.monotonic() + (RESOLVE_EVERY if error is None else RESOLVE_AGAIN)

    def _listed(self) -> list[BrokerNode]:
        """The nodes in use; the first :data:`BROKERS_MAX` where names resolve to more."""
        if self._nodes is not None:
            return self._nodes
        if self.upstream.path:
            self._nodes = [BrokerNode(path=self.upstream.path)]
            return self._nodes
        found = list(dict.fromkeys(node for host in self.upstream.hosts for node in self._of(host)))
        if len(found) > BROKERS_MAX and len(found) != self._too_many:
            logger.warning("the broker's names resolve to %d addresses; %d of them are used", len(found), BROKERS_MAX)
        self._too_many = len(found)
        self._nodes = found[:BROKERS_MAX]
        for node in self._known.keys() - set(self._nodes):
            del self._known[node]
        return self._nodes

    def _of(self, host: Address) -> list[BrokerNode]:
        """The nodes of a name: its IPv4 addresses, so that a node with one of each kind counts once.

        Those of IPv6 when there are no others, or none that was ever reached.
        """
        nodes = [BrokerNode(host.host, ip, host.port) for ip in self._addresses.get(host, ())]
        four = [node for node in nodes if ":" not in node.ip]
        return nodes if all(self._never_reached(node) for node in four) else four

    def _never_reached(self, node: BrokerNode) -> bool:
        known = self._known.get(node)
        return known is not None and known.failures > 0 and not known.ever_reached

    @property
    def size(self) -> int:
        """The number of nodes, as far as names have been resolved."""
        return len(self._listed())

    # --- which of them to use ------------------------------------------------------------------------------------

    def choose(self, avoid: Collection[BrokerNode] = ()) -> list[BrokerNode]:
        """Known nodes in the order in which to try them: each gets its turn, and those that failed come last.

        Those to ``avoid`` come behind the others that are well.
        """
        among = self._listed()
        if len(among) < 2:
            return among
        self._turn += 1
        start = self._turn % len(among)
        among = among[start:] + among[:start]
        failed = {node: known for node in among if (known := self._known.get(node)) is not None and known.failures}
        now = time.monotonic()
        due = (node for node, known in failed.items() if now >= known.bad_until)
        first = None if avoid else next(due, None)
        if first is not None:  # this caller finds out; others do not wait with it
            failed[first].on_trial = True
            failed.pop(first).bad_until = now + TRIAL
        return sorted(
            among,
            key=lambda node: (node is not first, failed[node].bad_until if node in failed else 0.0, node in avoid),
        )

    def well_beside(self, node: BrokerNode) -> bool:
        """Whether there is another node that is not known to be unreachable."""
        listed = self._listed()
        return len(listed) > 1 and any(
            other != node and self.state(other).reached is not Reached.UNREACHABLE for other in listed
        )

    def failed(self, node: BrokerNode, why: str) -> None:
        """Note that a node did not answer, or not as a broker does; ``why`` in a few words."""
        known = self._known.setdefault(node, _Known())
        self._nodes = None
        now = time.monotonic()
        if known.state.reached is not Reached.UNREACHABLE:
            known.state = NodeState(Reached.UNREACHABLE, time.time(), why)
            logger.warning("the broker node %s is unreachable: %s", node.label, why)
        elif known.state.why != why:
            known.state = replace(known.state, why=why)
        if known.on_trial or now >= known.bad_until:
            known.failures += 1  # and not for each of those that tried it at the same time
            known.on_trial = False
        pause = min(BACK_OFF_MAX, BACK_OFF * 2 ** min(known.failures - 1, 10))
        known.bad_until = now + pause * random.uniform(0.8, 1.2)  # noqa: S311 - edges do not come back together

    def succeeded(self, node: BrokerNode) -> None:
        """Note that a node answers: it takes part again at once."""
        known = self._known.get(node)
        if known is not None and known.state.reached is Reached.REACHABLE:
            return
        if known is not None and known.state.reached is Reached.UNREACHABLE:
            logger.warning("the broker node %s is reachable again", node.label)
        self._nodes = None
        self._known[node] = _Known(NodeState(Reached.REACHABLE, time.time()), ever_reached=True)

    def state(self, node: BrokerNode) -> NodeState:
        """The known state of a node."""
        known = self._known.get(node)
        return NodeState() if known is None else known.state

    # --- connections ---------------------------------------------------------------------------------------------

    async def connect(self, node: BrokerNode, protocol: Callable[[], Protocol]) -> tuple[asyncio.Transport, Protocol]:
        """Connect to a node. Raises :class:`OSError`, for TLS too; the caller bounds the time."""
        loop = asyncio.get_running_loop()
        if node.path:
            return await loop.create_unix_connection(protocol, node.path)
        return await loop.create_connection(
            protocol, node.ip, node.port, ssl=self.tls, server_hostname=node.host, ssl_shutdown_timeout=SHUTDOWN
        )

    async def streams(self, node: BrokerNode) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a node, for what is not the data path. Raises :class:`OSError`; the caller bounds the time."""
        reader = asyncio.StreamReader()
        transport, protocol = await self.connect(node, lambda: asyncio.StreamReaderProtocol(reader))
        return reader, asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())


def in_words(error: OSError | TimeoutError, within: float) -> str:
    """A sentence about a failed connect, for the log, events and pages."""
    if isinstance(error, TimeoutError) and not error.errno:
        return f"no answer within {within:.0f} s" if within >= 1 else "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or error}"
    return error.strerror or str(error) or type(error).__name__


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _resolve(host: Address) -> list[str]:
    """The addresses of a name, in an order that does not change with every answer."""
    answers = await asyncio.get_running_loop().getaddrinfo(host.host, host.port, type=socket.SOCK_STREAM)
    return sorted({str(address[0]) for *_, address in answers})
