"""Check PostgreSQL, Redis or Valkey, and certificates, both embedded and external."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
import redis
from redis.exceptions import RedisError

from cloudsignal.cli.checks.result import Result, fine, problem, warning
from cloudsignal.config import ConfigError, Environment
from cloudsignal.edge.broker.pool import BrokerPool, NoBrokerError
from cloudsignal.edge.broker.probe import ProbeResult, probe
from cloudsignal.edge.broker.together import apart
from cloudsignal.secrets import pki
from cloudsignal.wire import keys
from cloudsignal.wire.codec import WireError, decode
from cloudsignal.wire.report import LOST, Heartbeat
from cloudsignal.wire.sealed import unchecked

OLDEST_POSTGRES = 150_000
SKEW_SECONDS = 5.0
EDGES_MAX = 1_000
"""Edges whose heartbeats are looked at."""


def check_database(url: str) -> Iterator[Result]:
    """Version, the role's attributes, row-level security and the clock of PostgreSQL, seen as the application role."""
    try:
        connection = psycopg.connect(url, connect_timeout=5, autocommit=True)
    except (psycopg.Error, ValueError) as error:
        words = str(error).strip().splitlines()
        yield problem("postgres", f"no connection: {words[-1] if words else error}", "start it, or fix DATABASE_URL")
        return
    with contextlib.closing(connection):
        number = connection.info.server_version
        if number < OLDEST_POSTGRES:
            yield problem("postgres", f"version {number // 10_000} is too old", "upgrade to PostgreSQL 15 or newer")
        else:
            yield fine("postgres", f"answers, version {number // 10_000}.{number % 10_000}")
        yield _role(connection)
        yield _row_security(connection)
        row = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
        if row:
            yield _skew("postgres clock", float(row[0]))


def _role(connection: psycopg.Connection) -> Result:
    row = connection.execute(
        "SELECT rolname, rolsuper OR rolbypassrls, "
        "EXISTS (SELECT 1 FROM pg_class WHERE relowner = r.oid AND relkind IN ('r', 'p') "
        "AND relpersistence <> 't'), "
        "EXISTS (SELECT 1 FROM pg_proc p WHERE p.proname = 'delete_organization' "
        "AND has_function_privilege(p.oid, 'execute')) "
        "FROM pg_roles r WHERE rolname = current_user"
    ).fetchone()
    assert row is not None  # noqa: S101 - current_user exists
    name, above, owns, deletes = row
    if above:
        fix = f"ALTER ROLE {name} NOSUPERUSER NOBYPASSRLS; row-level security does not bind it as it is"
        return problem("database role", f"{name} is a superuser or has BYPASSRLS", fix)
    if owns:
        fix = "use a role of its own for the application; the owner goes into DATABASE_OWNER_URL"
        return problem("database role", f"{name} owns tables", fix)
    if deletes:
        fix = "run the migrations; the role of DATABASE_DELETE_URL must be another one"
        return problem("database role", f"{name} may delete organizations with their audit", fix)
    return fine("database role", f"{name}: no superuser, no BYPASSRLS, owns no table")


def check_deletion(url: str) -> Iterator[Result]:
    """Whether the role of ``DATABASE_DELETE_URL`` may delete organizations, and no more."""
    try:
        connection = psycopg.connect(url, connect_timeout=5, autocommit=True)
    except (psycopg.Error, ValueError) as error:
        words = str(error).strip().splitlines()
        fix = "make the role, or fix DATABASE_DELETE_URL; without it, organizations that are deleted stay"
        yield problem("deletion role", f"no connection: {words[-1] if words else error}", fix)
        return
    with contextlib.closing(connection):
        name, above, owns, migrated, deletes = connection.execute(_DELETION).fetchone() or ("", False, False, False, 0)
    if above:
        yield problem(
            "deletion role", f"{name} is a superuser or has BYPASSRLS", f"ALTER ROLE {name} NOSUPERUSER NOBYPASSRLS"
        )
    elif owns:
        yield problem("deletion role", f"{name} owns tables", "use a role of its own; docs/operations.md has the SQL")
    elif migrated and not deletes:
        fix = "give it, as the owner, the two GRANT lines of docs/operations.md, Parts of your own"
        yield problem("deletion role", f"{name} may not delete organizations, so they stay in the database", fix)
    elif migrated:
        yield fine("deletion role", f"{name}: deletes organizations whose time has come, and owns no table")


_DELETION = """
SELECT rolname, rolsuper OR rolbypassrls,
    EXISTS (SELECT 1 FROM pg_class WHERE relowner = r.oid AND relkind IN ('r', 'p') AND relpersistence <> 't'),
    to_regclass('public.orgs_deletion') IS NOT NULL,
    (SELECT count(*) = 2 FROM pg_proc p WHERE p.proname IN ('delete_organization', 'notice_deletions')
        AND p.pronamespace = 'public'::regnamespace AND has_function_privilege(p.oid, 'execute'))
    AND has_table_privilege(to_regclass('public.orgs_deletion'), 'SELECT')
    AND has_table_privilege(to_regclass('public.orgs_deletion'), 'DELETE')
FROM pg_roles r WHERE rolname = current_user
"""


def check_ingest(url: str) -> Iterator[Result]:
    """Whether the role of ``DATABASE_INGEST_URL`` may append to the audit, and no more."""
    try:
        connection = psycopg.connect(url, connect_timeout=5, autocommit=True)
    except (psycopg.Error, ValueError) as error:
        words = str(error).strip().splitlines()
        fix = "make the role, or fix DATABASE_INGEST_URL; ingest waits until it can sign in"
        yield problem("ingest role", f"no connection: {words[-1] if words else error}", fix)
        return
    with contextlib.closing(connection):
        name, above, bypasses, migrated, appends, more = connection.execute(_INGEST).fetchone() or ("", *(False,) * 5)
    if above:
        yield problem("ingest role", f"{name} is a superuser", f"ALTER ROLE {name} NOSUPERUSER BYPASSRLS")
    elif not bypasses:
        yield problem(
            "ingest role", f"{name} lacks BYPASSRLS, without which it cannot COPY", f"ALTER ROLE {name} BYPASSRLS"
        )
    elif migrated and not appends:
        fix = "give it, as the owner, the GRANT lines of docs/operations.md, Parts of your own"
        yield problem("ingest role", f"{name} may not append to the audit, so events wait in the stream", fix)
    elif more:
        fix = "use a role of its own; docs/operations.md has the SQL"
        yield problem("ingest role", f"{name} may change the audit or write to other tables", fix)
    elif migrated:
        yield fine("ingest role", f"{name}: appends to the audit, and changes nothing in it")


_INGEST = """
SELECT rolname, rolsuper, rolbypassrls, to_regclass('public.audit_event') IS NOT NULL,
    has_table_privilege(to_regclass('public.audit_event'), 'INSERT')
    AND has_table_privilege(to_regclass('public.audit_event'), 'SELECT')
    AND has_table_privilege(to_regclass('public.audit_journal'), 'INSERT, UPDATE')
    AND has_table_privilege(to_regclass('public.audit_opensession'), 'INSERT, UPDATE, DELETE'),
    EXISTS (SELECT 1 FROM pg_class c WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
        AND (has_table_privilege(c.oid, 'TRUNCATE') OR (has_table_privilege(c.oid, 'UPDATE, DELETE')
            AND relname NOT IN ('audit_journal', 'audit_opensession'))))
FROM pg_roles r WHERE rolname = current_user
"""


def _row_security(connection: psycopg.Connection) -> Result:
    rows = connection.execute(
        "SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity FROM pg_class c "
        "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'org_id' AND NOT a.attisdropped "
        "WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') ORDER BY 1"
    ).fetchall()
    if not rows:
        return problem("row security", "there are no tables", "run the migrations (cloudsignal up does)")
    open_tables = [name for name, forced in rows if not forced and name != "cloudsignal_outboxrow"]
    if open_tables:
        fix = "run the migrations; if that does not help, report it as a defect"
        return problem("row security", f"not forced on {', '.join(open_tables)}", fix)
    return fine("row security", f"forced on {len(rows)} tables")


def check_redis(url: str) -> Iterator[Result]:
    """Version, eviction, persistence and the clock of Redis or Valkey."""
    try:
        client = redis.Redis.from_url(url, socket_connect_timeout=5, socket_timeout=5, decode_responses=True)
    except ValueError as error:
        yield problem("redis", f"REDIS_URL cannot be read: {error}", "write redis://:PASSWORD@HOST:6379/0")
        return
    try:
        info = client.info("server")
        seconds, microseconds = client.time()
        policy, append = _setting(client, "maxmemory-policy"), _setting(client, "appendonly")
        most = _setting(client, "maxmemory")
    except (RedisError, OSError) as error:
        yield problem("redis", f"no connection: {error}", "start it, or fix REDIS_URL")
        return
    finally:
        client.close()
    found = str(info.get("valkey_version") or info.get("redis_version", "0"))
    if tuple(int(part) for part in found.split(".")[:2]) < (6, 2):
        yield problem("redis", f"version {found} is too old", "upgrade to Redis 6.2 or newer, or Valkey")
    else:
        yield fine("redis", f"answers, version {found}")
    if policy not in {None, "noeviction"}:
        fix = "CONFIG SET maxmemory-policy noeviction; streams and queues are not a cache"
        yield problem("redis memory", f"maxmemory-policy is {policy}", fix)
    if most == "0":
        fix = "CONFIG SET maxmemory 1gb, or more: then writing fails and says so before the machine's memory ends"
        yield warning("redis memory", "maxmemory is not set", fix)
    if append == "no":
        fix = "set appendonly yes, or audit events are lost when it restarts"
        yield warning("redis persistence", "the append-only file is off", fix)
    yield _skew("redis clock", int(seconds) + int(microseconds) / 1e6)


def _setting(client: redis.Redis, name: str) -> str | None:
    """A setting; None where the server does not let us look (managed services)."""
    try:
        values = client.config_get(name)
    except RedisError:
        return None
    return str(values.get(name)) if isinstance(values, dict) and name in values else None


def _skew(area: str, theirs: float) -> Result:
    skew = theirs - time.time()
    if abs(skew) > SKEW_SECONDS:
        return warning(area, f"differs from ours by {skew:+.0f} s", "switch on time synchronization on both machines")
    return fine(area, "agrees with ours")


def check_brokers(url: str) -> Iterator[Result]:
    """Each broker node as each edge reports it, from the heartbeats on Redis or Valkey."""
    try:
        client = redis.Redis.from_url(url, socket_connect_timeout=5, socket_timeout=5)
    except ValueError:
        return  # said above
    try:
        names = sorted(client.scan_iter(match=keys.NODE_PATTERN, count=1_000))[:EDGES_MAX]
        blobs = [blob for blob in client.mget(names) if isinstance(blob, bytes)] if names else []
    except (RedisError, OSError):
        return  # said above
    finally:
        client.close()
    for blob in blobs:
        with contextlib.suppress(WireError):
            yield from _of_edge(decode(unchecked(blob), Heartbeat))


def _of_edge(beat: Heartbeat) -> Iterator[Result]:
    if not beat.brokers:
        yield warning(f"edge {beat.node}", "does not say whether it reaches a broker", "upgrade it")
    for state in beat.brokers:
        area, since = f"edge {beat.node}", ""
        if state.since:
            since = time.strftime(", since %Y-%m-%d %H:%M:%S UTC", time.gmtime(state.since))
        said = f"broker {state.label} is {state.state}"
        if state.state in LOST:
            yield problem(area, f"{said}: {state.why}{since}", "start that broker, or fix MQTT_UPSTREAM_URL")
        elif state.state != "reachable":
            yield warning(area, f"{said}{': ' + state.why if state.why else ''}", "look again in ten seconds")
        else:
            yield fine(area, f"{said} ({state.latency_ms:.0f} ms)")
        if state.cluster == "disagree":
            seen = ", ".join([*state.members, *(f"{name} (does not run)" for name in state.missing)])
            fix = "join the members again; docs/brokers.md says how, and what a split loses"
            yield problem(area, f"broker {state.label} disagrees about the members: it sees {seen}", fix)


def check_upstream(own: Mapping[str, str]) -> Iterator[Result]:
    """Sign in at each node of ``MQTT_UPSTREAM_URL`` as an edge does."""
    try:
        pool = BrokerPool(Environment(own).upstream())
    except ConfigError:
        return  # said above
    except (OSError, ssl.SSLError) as error:
        fix = "replace the files that ca, cert and key of MQTT_UPSTREAM_URL name"
        yield problem("broker", f"certificate files of MQTT_UPSTREAM_URL cannot be used: {error}", fix)
        return
    probed, stranger = asyncio.run(_ask_all(pool))
    for label, found in probed:
        if found.answered:
            yield fine("broker", f"{label} lets an edge in ({found.latency_ms:.0f} ms)")
        else:
            yield problem("broker", f"{label} is {found.state}: {found.why}", _BROKER_FIX[found.state])
    if stranger:
        text = f"{stranger} does not share sessions with the first node: clients on one do not hear those on the other"
        fix = "join the nodes, or name one of them; several Mosquitto are no cluster (docs/brokers.md)"
        yield problem("broker", text, fix)


_BROKER_FIX = {
    "refused": "let the broker trust the authority of the certificate, and use the files that CloudSignal generated",
    "unreachable": "start that broker, or fix MQTT_UPSTREAM_URL",
}


async def _ask_all(pool: BrokerPool) -> tuple[list[tuple[str, ProbeResult]], str]:
    """The finding of a probe of each node, and the label of one that is no part of the first one's cluster."""
    probed = await _probe_all(pool)
    answering = {label for label, found in probed if found.answered}
    nodes = [node for node in await pool.nodes() if node.label in answering] if answering else []
    stranger = await apart(pool, nodes, edge="doctor")
    return probed, stranger.label if stranger else ""


async def _probe_all(pool: BrokerPool) -> list[tuple[str, ProbeResult]]:
    try:
        nodes = await pool.nodes()
    except NoBrokerError as error:
        return [("MQTT_UPSTREAM_URL", ProbeResult("unreachable", str(error)))]
    found = await asyncio.gather(*(probe(pool, node, edge="doctor") for node in nodes))
    unresolved = [(label, ProbeResult("unreachable", why)) for label, why in pool.unresolved.items()]
    return [*unresolved, *zip((node.label for node in nodes), found, strict=True)]


def check_certificate(cert: Path, key: Path) -> Iterator[Result]:
    """Whether the edge's certificate can be read, fits its key and has time left."""
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        yield problem("certificate", f"{cert} and {key} do not load: {error}", "replace them with a matching PEM pair")
        return
    days = pki.days_left(cert)
    if days is None or days <= 0:
        yield problem("certificate", f"{cert} has expired", "renew it (a local one is renewed by `cloudsignal up`)")
    elif days < 14:
        yield warning("certificate", f"{cert} ends in {days:.0f} days", "renew it")
    else:
        yield fine("certificate", f"{cert}, {days:.0f} days left")
