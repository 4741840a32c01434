"""Admission of connections before CONNECT: a bounded number of places, shared fairly by network and address.

A connection has a place from its handshake until its CONNECT is complete. Places are few for one address and one
network; who finds none waits in the queue of its address, and queues are served in turn. So one host with any number of
silent connections keeps nobody out but itself, and what strangers can hold in memory is bounded.
"""

from __future__ import annotations

import asyncio
import ipaddress
import resource
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

AT_ONCE = 512
"""Connections of a process that may be before CONNECT at a time."""

PER_ADDRESS = 64
"""Places for connections of one address."""

PER_NETWORK = 128
"""Places of one network: an IPv4 /24, an IPv6 /64."""

PER_FAILING = 8
"""Places of an address whose sign-ins are refused for having failed too often."""

WAITING_ADDRESS = 1_024
"""Connections of one address that wait for a place, at most; a further one is closed."""

WAITING = 4_096
"""Connections that wait, at most; an address that has none waiting takes the place of one of the longest queue."""

PATIENCE = 2.0
"""Seconds after which a place is taken away when somebody waits for it."""

LOOK_EVERY = 0.25
"""Seconds between two looks at places while somebody waits."""

RESERVE = 128
"""File descriptors kept back for everything that is not a client."""

PER_CLIENT = 2
"""File descriptors of one session: the client's socket and the broker's."""


class Place:
    """The right of one connection to be served before its CONNECT is complete."""

    __slots__ = ("_admission", "address", "began", "give_up", "network")

    def __init__(self, admission: Admission, address: str, network: str) -> None:
        self._admission: Admission | None = admission
        self.address, self.network = address, network
        self.began = time.monotonic()
        self.give_up: Callable[[], None] | None = None
        """Closes the connection; it leaves its place thereby."""

    def leave(self) -> None:
        """Free the place: CONNECT is complete, or the connection is closed. A second call does nothing."""
        admission, self._admission = self._admission, None
        self.give_up = None  # the connection knows its place, and no circle may remain
        if admission is not None:
            admission.left(self)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many places and waiting connections there may be, so that they fit into the file descriptors there are."""

    places: int
    waiting: int
    waiting_address: int

    @classmethod
    def within(cls, capacity: int) -> Bounds:
        """Bounds of a process that can hold ``capacity`` sessions."""
        return cls(
            min(AT_ONCE, max(1, capacity // 2)),
            min(WAITING, max(1, capacity // 4)),
            min(WAITING_ADDRESS, max(1, capacity // 8)),
        )


class Admission:
    """The places of one process. ``failing`` says of an address whether it has failed to sign in too often."""

    def __init__(self, failing: Callable[[str], bool], *, capacity: int) -> None:
        self._failing = failing
        self._bounds = Bounds.within(capacity)
        self._places: OrderedDict[Place, None] = OrderedDict()
        """Oldest first."""
        self._by_address: Counter[str] = Counter()
        self._by_network: Counter[str] = Counter()
        self._queues: OrderedDict[str, OrderedDict[str, deque[asyncio.Future[Place | None]]]] = OrderedDict()
        """Waiting connections by network and address; the next in turn stands first."""
        self.waiting = 0
        self._timer: asyncio.TimerHandle | None = None

    async def enter(self, ip: str) -> Place | None:
        """A place for a connection of ``ip``, waited for in turn; ``None`` when too many wait already."""
        address, network = _names(ip)
        if network not in self._queues and self._room(address, network):
            return self._take(address, network)
        queue = self._queues[network].get(address) if network in self._queues else None
        if queue and len(queue) >= self._bounds.waiting_address:
            return None
        if self.waiting >= self._bounds.waiting and (queue or not self._displace()):
            return None
        mine: asyncio.Future[Place | None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(network, OrderedDict()).setdefault(address, deque()).append(mine)
        self.waiting += 1
        self._serve()
        self._look_later()
        try:
            return await mine
        except asyncio.CancelledError:
            if not mine.cancelled() and (place := mine.result()) is not None:
                place.leave()  # given in the same moment
            raise

    def left(self, place: Place) -> None:
        """A place is free."""
        del self._places[place]
        for counts, name in ((self._by_address, place.address), (self._by_network, place.network)):
            counts[name] -= 1
            if not counts[name]:
                del counts[name]
        if self.waiting:
            self._serve()

    def _room(self, address: str, network: str) -> bool:
        if len(self._places) >= self._bounds.places or self._by_network[network] >= PER_NETWORK:
            return False
        held = self._by_address[address]
        return held < PER_FAILING or (held < PER_ADDRESS and not self._failing(address))

    def _take(self, address: str, network: str) -> Place:
        place = Place(self, address, network)
        self._places[place] = None
        self._by_address[address] += 1
        self._by_network[network] += 1
        return place

    def _serve(self) -> None:
        """Give free places to waiting connections, in turn."""
        while len(self._places) < self._bounds.places and (turn := self._next()) is not None:
            network, address = turn
            mine = self._pop(network, address)
            if network in self._queues:
                self._queues.move_to_end(network)
                if address in self._queues[network]:
                    self._queues[network].move_to_end(address)
            if not mine.done():
                mine.set_result(self._take(address, network))

    def _next(self) -> tuple[str, str] | None:
        for network, queues in self._queues.items():
            if self._by_network[network] >= PER_NETWORK:
                continue  # whoever of it waits, and a /64 has addresses without end
            for address in queues:
                if self._room(address, network):
                    return network, address
        return None

    def _pop(self, network: str, address: str, *, newest: bool = False) -> asyncio.Future[Place | None]:
        queues = self._queues[network]
        mine = queues[address].pop() if newest else queues[address].popleft()
        self.waiting -= 1
        if not queues[address]:
            del queues[address]
        if not queues:
            del self._queues[network]
        return mine

    def _displace(self) -> bool:
        """Refuse the last of the longest queue, unless no queue is longer than one."""
        longest, network, address = max(
            (len(queue), network, address)
            for network, queues in self._queues.items()
            for address, queue in queues.items()
        )
        if longest > 1:
            last = self._pop(network, address, newest=True)
            if not last.done():
                last.set_result(None)
        return longest > 1

    def _look_later(self) -> None:
        if self._timer is None and self.waiting:
            self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY, self._look)

    def _look(self) -> None:
        """Close connections that have held a place too long, as far as others wait for these places."""
        self._timer = None
        end = time.monotonic() - PATIENCE
        wanted = self.waiting
        for place in list(self._places):
            if place.began > end or not wanted:
                break
            if place.give_up is not None and self._wanted(place):
                wanted -= 1
                place.give_up()
        self._look_later()

    def _wanted(self, place: Place) -> bool:
        if len(self._places) >= self._bounds.places:
            return True
        same = self._queues.get(place.network)
        return same is not None and (place.address in same or self._by_network[place.network] >= PER_NETWORK)


@lru_cache(maxsize=8_192)
def _names(ip: str) -> tuple[str, str]:
    """The address and the network that ``ip`` counts for."""
    try:
        address = ipaddress.ip_address(ip.partition("%")[0])
    except ValueError:
        return ip, ip
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(address), str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
        address = address.ipv4_mapped
    return str(address), str(ipaddress.IPv4Network((int(address) >> 8 << 8, 24)))


def session_capacity() -> int:
    """Sessions that fit into the file descriptors of this process, after raising the soft limit to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = 1 << 20
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return (hard - RESERVE) // PER_CLIENT
