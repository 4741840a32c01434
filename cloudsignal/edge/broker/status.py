"""Status pages of a broker node over HTTP: VerneMQ's ``/health``, ``/status.json`` and ``/metrics``.

All of it is for people, and for organizations that want no acknowledgement while nodes are split. It is read within
bounds, and whatever is not as VerneMQ writes it is "unknown" with a reason: a page that lies, hangs or is another
service's changes no sign-in.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit

import h11

WITHIN = 1.5
"""Seconds until all pages of a node have been read; what has not come by then is unknown."""

PAGES = {"health": 16 * 1024, "status.json": 128 * 1024, "metrics": 1024 * 1024}
"""The pages, and their longest in bytes as sent: asked for uncompressed, never unpacked. Parsing JSON takes longest."""

PIECES_MAX = 2_048
"""Steps in which a page may come (reads, chunks, 1xx answers): each costs the same, however small it is."""

PIECES_AT_ONCE = 64
"""Steps after which everything else on this edge gets its turn."""

LINES_MAX = 256
"""Lines of ``/metrics`` that are added up; VerneMQ writes one of each metric for a node."""

COUNT_MAX = 2**63 - 1
"""Highest count that is passed on: what is more fits neither a heartbeat nor a column of the database."""

MEMBERS_MAX = 64
"""Members of a cluster that are read; a list of more is no cluster."""

_NAME = re.compile(r"[!-~]{1,255}")
"""The name of an Erlang node, such as ``VerneMQ@10.0.0.5``."""

_METRIC = re.compile(
    r"^(?:vernemq_)?(queue_message_drop|netsplit_detected|netsplit_resolved|cluster_bytes_dropped)"
    r"(?:\{([^}\n]{0,1024})\})? (\d{1,18})$",
    re.MULTILINE,
)
_NODE_LABEL = re.compile(r'(?:^|,)node="([!-~]{1,255}?)"')

_NO_LISTENERS = "Listeners are not ready"
"""Beginning of the reason in ``/health`` of a node that has stopped its listeners (first half of ``cluster leave``)."""


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """The status of one broker node. Without ``members`` its part in the cluster is unknown, and ``why`` says why."""

    name: str = ""
    """The node's name in the cluster, such as ``VerneMQ@10.0.0.5``."""
    members: Mapping[str, bool] = field(default_factory=dict)
    """Each member as this node sees it: whether it runs."""
    ready: bool | None = None
    """Whether ``/health`` is 200; ``None`` when it did not answer."""
    draining: bool = False
    """Whether the node has stopped its listeners and takes no new clients."""
    drops: int = -1
    """Messages that the node's queues have dropped since it started; -1 when unknown."""
    bytes_dropped: int = -1
    """Bytes for other nodes that the node has dropped since it started; -1 when unknown."""
    netsplits: int = -1
    """Splits that the node has detected and that are not resolved; -1 when unknown."""
    why: str = ""

    @property
    def running(self) -> tuple[str, ...]:
        """Members that run, as this node sees them."""
        return tuple(sorted(name for name, runs in self.members.items() if runs))

    @property
    def missing(self) -> tuple[str, ...]:
        """Members that do not run, as this node sees them."""
        return tuple(sorted(name for name, runs in self.members.items() if not runs))


@dataclass(frozen=True, slots=True)
class ClusterView:
    """The statuses of all nodes together: who sees whom."""

    state: Literal["agree", "disagree", "unknown"]
    groups: tuple[tuple[str, ...], ...] = ()
    """Members that see each other; more than one group only while they disagree."""
    split: bool = False
    """Whether members disagree and no page contradicts it: messages do not get from one group to another."""
    draining: tuple[str, ...] = ()
    """Nodes that take no new clients, by the label they were asked under."""
    why: str = ""
    """The disagreement in a sentence, or why nothing is known."""


class PageError(Exception):
    """A page did not come, or is not what VerneMQ writes. The text says what is wrong."""


async def read_status(base: str) -> NodeStatus:
    """Read the node whose pages are below ``base``, such as ``http://10.0.0.5:8888``. Raises nothing."""
    asked = (_page(f"{base.rstrip('/')}/{name}", longest) for name, longest in PAGES.items())
    health, status, metrics = await asyncio.gather(*asked)
    return read_node(health, status, metrics)


async def _page(url: str, longest: int) -> Page:
    try:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            return PageError("the status URL is not http://HOST:PORT")
        async with asyncio.timeout(WITHIN):
            return await _get(parts, longest)
    except TimeoutError:
        return PageError(f"no answer within {WITHIN} s")
    except (h11.ProtocolError, OSError, ValueError) as error:
        return PageError(f"{type(error).__name__}: {error}"[:200])


async def _get(url: SplitResult, longest: int) -> Page:
    """One GET on a connection of its own; redirects are not followed, and nothing is unpacked."""
    reader, writer = await asyncio.open_connection(url.hostname, url.port or 80)
    try:
        speech = h11.Connection(h11.CLIENT)
        host = url.netloc.rpartition("@")[2]
        headers = [("Host", host), ("Accept-Encoding", "identity"), ("Connection", "close")]
        writer.write(speech.send(h11.Request(method="GET", target=url.path, headers=headers)) or b"")
        speech.send(h11.EndOfMessage())
        return await _answer(speech, reader, longest)
    finally:
        writer.close()


async def _answer(speech: h11.Connection, reader: asyncio.StreamReader, longest: int) -> Page:
    code, body = 0, bytearray()
    for piece in range(1, PIECES_MAX + 1):
        if not piece % PIECES_AT_ONCE:
            await asyncio.sleep(0)  # a read that finds something waits for nothing
        event = speech.next_event()
        if event is h11.NEED_DATA:
            speech.receive_data(await reader.read(65_536))
        elif isinstance(event, h11.Response):
            code = event.status_code
            if dict(event.headers).get(b"content-encoding", b"identity") != b"identity":
                return PageError("compressed, though it was asked for plain")
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > longest:
                return PageError(f"longer than {longest} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return code, bytes(body)
        elif not isinstance(event, h11.InformationalResponse):
            return PageError("the connection ended before the answer")
    return PageError("it has too many pieces")


Page = tuple[int, bytes] | PageError
"""Status code and body, or why there is none."""


def read_node(health: Page, status: Page, metrics: Page) -> NodeStatus:
    """Put the three pages of a node together; each may be missing or garbage."""
    values, name = _metrics(metrics)
    ready, draining = _health(health)
    members: Mapping[str, bool] = {}
    why = ""
    try:
        own, members = _members(_body(status), name)
        name = own or name
    except PageError as error:
        why = f"status.json: {error}"
    detected, resolved = values.get("netsplit_detected", -1), values.get("netsplit_resolved", -1)
    return NodeStatus(
        name=name,
        members=members,
        ready=ready,
        draining=draining,
        drops=values.get("queue_message_drop", -1),
        bytes_dropped=values.get("cluster_bytes_dropped", -1),
        netsplits=max(0, detected - resolved) if min(detected, resolved) >= 0 else -1,
        why=why,
    )


def cluster_view(statuses: Mapping[str, NodeStatus]) -> ClusterView:
    """Compare the statuses of all nodes, each under the label it was asked under.

    Two nodes are apart when neither sees the other run; a member that no page is known of is apart when a node says
    so. A node that is said to be down and says itself that both run is a contradiction, and no split.
    """
    known = {one.name: one for one in statuses.values() if one.members}
    draining = tuple(sorted(label for label, one in statuses.items() if one.draining))
    if not known:
        why = next((f"{label}: {one.why}" for label, one in statuses.items() if one.why), "no node has been asked")
        return ClusterView("unknown", draining=draining, why=why)
    apart: list[str] = []
    doubtful: list[str] = []
    for name, one in sorted(known.items()):
        for other in sorted({*one.members, *known} - {name}):
            if one.members.get(other, False):
                continue
            contradicted = other in known and known[other].members.get(name, False)
            (doubtful if contradicted else apart).append(f"{name} does not see {other}")
    groups = _groups(known)
    if apart or doubtful:
        return ClusterView("disagree", groups, bool(apart), draining, "; ".join((apart + doubtful)[:4]))
    silent = next((f"{label}: {one.why}" for label, one in statuses.items() if not one.members), "")
    if silent:
        return ClusterView("unknown", groups, draining=draining, why=silent)
    return ClusterView("agree", groups, draining=draining)


def _groups(known: Mapping[str, NodeStatus]) -> tuple[tuple[str, ...], ...]:
    """Members that see each other, directly or through others; a member that nobody sees stands alone."""
    left = sorted({name for one in known.values() for name in one.members} | set(known))
    groups: list[tuple[str, ...]] = []
    while left:
        group, edge = {left[0]}, [left[0]]
        while edge:
            name = edge.pop()
            more = {other for other in left if other not in group and _see(known, name, other)}
            group |= more
            edge += more
        groups.append(tuple(sorted(group)))
        left = [name for name in left if name not in group]
    return tuple(groups)


def _see(known: Mapping[str, NodeStatus], one: str, other: str) -> bool:
    """Whether each of two members sees the other run, as far as their pages are known."""
    pairs = ((one, other), (other, one))
    said = [known[name].members.get(peer, False) for name, peer in pairs if name in known]
    return bool(said) and all(said)


def _body(page: Page) -> bytes:
    if isinstance(page, PageError):
        raise page
    code, body = page
    if code != 200:
        raise PageError(f"answered {code}")
    return body


def _health(page: Page) -> tuple[bool | None, bool]:
    """Whether the node is ready, and whether it drains."""
    if isinstance(page, PageError) or page[0] not in {200, 503}:
        return None, False
    try:
        reasons = _json(page[1]).get("reasons", [])
        draining = any(isinstance(one, str) and one.startswith(_NO_LISTENERS) for one in reasons)
    except (PageError, AttributeError, TypeError):
        return None, False
    return page[0] == 200, draining and page[0] == 503


def _members(body: bytes, name: str) -> tuple[str, dict[str, bool]]:
    """The node's own name, and each member as it sees it. Its own entry is the one ``/metrics`` names, or the first."""
    entries = _merged(_json(body))
    own = name if name in entries else next(iter(entries), "")
    entry = entries.get(own)
    members = _merged(entry.get("mystatus")) if isinstance(entry, dict) else {}
    if not members:
        raise PageError("it names no members")
    if len(members) > MEMBERS_MAX:
        raise PageError(f"it names more than {MEMBERS_MAX} members")
    if not all(_NAME.fullmatch(one) and isinstance(runs, bool) for one, runs in members.items()):
        raise PageError("its members are not as VerneMQ writes them")
    if not members.get(own, False):
        raise PageError("the node does not count itself among those that run")
    return own, members


def _merged(value: Any) -> dict[str, Any]:
    """VerneMQ wraps an object in a list of one."""
    merged: dict[str, Any] = {}
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, dict):
            merged.update(one)
    return merged


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise PageError("it is no JSON") from None


def _metrics(page: Page) -> tuple[dict[str, int], str]:
    """The metrics that are looked at, and the node they name."""
    try:
        text = _body(page).decode("utf-8", "replace")
    except PageError:
        return {}, ""
    values: dict[str, int] = {}
    name = ""
    for metric, labels, value in (line.groups("") for line in islice(_METRIC.finditer(text), LINES_MAX)):
        values[metric] = min(COUNT_MAX, values.get(metric, 0) + int(value))
        found = _NODE_LABEL.search(labels)
        name = name or (found.group(1) if found else "")
    return values, name
