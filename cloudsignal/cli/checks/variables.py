"""Check environment variables: known names, valid values, variables that belong together."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec

import redis

from audit.log.witness import parse_witnesses
from cloudsignal.cli.checks.result import Level, Result, fine, problem, warning
from cloudsignal.config import VARIABLES, ConfigError, Environment
from cloudsignal.edge.settings import NODE
from cloudsignal.errors import quoted
from cloudsignal.startup import database, mail_server
from cloudsignal.wire.sealed import node_key

OTHERS = {
    "CLOUDSIGNAL_API_KEY", "CLOUDSIGNAL_URL", "CLOUDSIGNAL_CA", "CLOUDSIGNAL_SUPERVISED", "CLOUDSIGNAL_DB_POOL",
}  # fmt: skip
"""Read by programs of ours, but not part of the configuration of a server."""

TOGETHER = (
    ("EDGE_TLS_CERT", "EDGE_TLS_KEY"),
    ("EDGE_TLS_KEY", "EDGE_TLS_CERT"),
    ("CLOUDSIGNAL_SIGNING_KEY", "CLOUDSIGNAL_VERIFY_KEY"),
    ("DATABASE_OWNER_URL", "DATABASE_URL"),
    ("DATABASE_DELETE_URL", "DATABASE_URL"),
    ("DATABASE_INGEST_URL", "DATABASE_URL"),
)
"""The first is of no use without the second."""

WRONG = "wrong value"
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?")


def check(own: Mapping[str, str]) -> Iterator[Result]:
    """One result for every variable that is set, and for those that are missing beside it."""
    known = {variable.name for variable in VARIABLES}
    settled = [variable for variable in VARIABLES if own.get(variable.name, "").strip()]
    for variable in settled:
        shown = "set" if variable.secret else repr(own[variable.name].strip())
        try:
            CHECKS.get(variable.name, _anything)(Environment(own), variable.name)
        except ConfigError as error:
            yield problem(variable.name, WRONG, str(error))
        else:
            yield fine(variable.name, f"{shown} ({variable.purpose})")
    present = {variable.name for variable in settled}
    for one, other in TOGETHER:
        if one in present and other not in present:
            yield problem(other, f"is not set, but {one} is", "they belong together: set both or neither")
    if "DATABASE_URL" in present and "DATABASE_OWNER_URL" not in present:
        fix = "set it where migrations run, to the same database as the role that owns the tables"
        yield warning("DATABASE_OWNER_URL", "is not set, but DATABASE_URL is", fix)
    if "DATABASE_URL" in present and "DATABASE_DELETE_URL" not in present:
        fix = "set it where workers run; without it, organizations that are deleted stay in the database"
        yield warning("DATABASE_DELETE_URL", "is not set, but DATABASE_URL is", fix)
    if "DATABASE_URL" in present and "DATABASE_INGEST_URL" not in present:
        fix = "set it where ingest runs; without it, ingest signs in as the application's role and is slower"
        yield warning("DATABASE_INGEST_URL", "is not set, but DATABASE_URL is", fix)
    for name in sorted(own):
        if name.startswith(("CLOUDSIGNAL_", "EDGE_")) and name not in known | OTHERS:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]}?" if close else "remove it"
            yield warning(name, "is set, but nothing reads it", hint)
    if not settled:
        yield fine("environment", "nothing is set; everything has a default")


def refuse(own: Mapping[str, str]) -> None:
    """Raise :class:`ConfigError` with everything that is wrong: a start that goes on would fail part by part."""
    wrong = [each for each in check(own) if each.level is Level.PROBLEM]
    if wrong:
        raise ConfigError(
            "\n".join(each.fix if each.text == WRONG else f"{each.area} {each.text}; {each.fix}" for each in wrong)
        )


def _anything(environment: Environment, name: str) -> None:
    environment.text(name)


def _key(environment: Environment, name: str) -> None:
    environment.key(name)


def _node_key(environment: Environment, name: str) -> None:
    key = environment.key(name)
    if environment.text("CLOUDSIGNAL_PEPPER", "") and key != node_key(environment.key("CLOUDSIGNAL_PEPPER")):
        raise ConfigError(
            f"{name} is not the one that is made from CLOUDSIGNAL_PEPPER, so messages from edges would not be trusted; "
            "leave it out where the pepper is set, or make it as docs/operations.md says"
        )


def _flag(environment: Environment, name: str) -> None:
    environment.flag(name)


def _port(environment: Environment, name: str) -> None:
    environment.number(name, 1, low=1, high=65535)


def _count(high: int) -> Callable[[Environment, str], None]:
    def check_count(environment: Environment, name: str) -> None:
        environment.number(name, 1, low=1, high=high)

    return check_count


def _networks(environment: Environment, name: str) -> None:
    for text in filter(None, map(str.strip, environment.text(name).split(","))):
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError as error:
            raise ConfigError(f"{name}: {error}; write networks such as 10.0.0.0/8, with commas") from None


def _address(environment: Environment, name: str) -> None:
    environment.address(name, "off")


def _private_address(environment: Environment, name: str) -> None:
    environment.address(name, "off", private=True)


def _upstream(environment: Environment, name: str) -> None:
    environment.upstream(name)


def _dotted(environment: Environment, name: str) -> None:
    package, dot, _ = environment.text(name).partition(".")
    if not dot or find_spec(package) is None:
        raise ConfigError(f"{name}: no such package is installed; write the dotted path of a class")


def _file(environment: Environment, name: str) -> None:
    path = environment.path(name)
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ConfigError(f"{name}: {path} cannot be read: {error.strerror}") from None


def _folder(environment: Environment, name: str) -> None:
    path = environment.path(name)
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{name}: {path} is not a folder")


def _witnesses(environment: Environment, name: str) -> None:
    path = environment.path(name)
    try:
        parse_witnesses(path.read_text("utf-8") if path.exists() else "")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{name}: {path} is not a list of witnesses: {error}") from None


def _origin(environment: Environment, name: str) -> None:
    environment.origin(name)


def _mail(environment: Environment, name: str) -> None:
    mail_server(environment.text(name))


def _database(environment: Environment, name: str) -> None:
    database(environment.text(name))


def _redis(environment: Environment, name: str) -> None:
    try:
        redis.Redis.from_url(environment.text(name)).close()  # reads it, and connects to nothing
    except ValueError:
        raise ConfigError(
            f"{name} must start with redis://, rediss:// or unix://, as redis://:PASSWORD@HOST:6379/0"
        ) from None


def _host(environment: Environment, name: str) -> None:
    value = environment.text(name)
    try:
        ipaddress.ip_address(value)
    except ValueError:
        if not _HOST.fullmatch(value):
            raise ConfigError(f"{name} is {quoted(value)}; write a host name alone, such as mqtt.example.com") from None


def _node(environment: Environment, name: str) -> None:
    if not NODE.fullmatch(environment.text(name)):
        raise ConfigError(f"{name}: write letters, digits, '.', '_' and '-', at most 63")


CHECKS: dict[str, Callable[[Environment, str], None]] = {
    "CLOUDSIGNAL_DATA": _folder,
    "CLOUDSIGNAL_PUBLIC_URL": _origin,
    "CLOUDSIGNAL_EMAIL_URL": _mail,
    "CLOUDSIGNAL_EMAIL_BACKEND": _dotted,
    "CLOUDSIGNAL_MQTT_HOST": _host,
    "CLOUDSIGNAL_MQTT_PORT": _port,
    "CLOUDSIGNAL_WSS_PORT": _port,
    "CLOUDSIGNAL_PEPPER": _key,
    "CLOUDSIGNAL_NODE_KEY": _node_key,
    "CLOUDSIGNAL_SIGNING_KEY": _key,
    "CLOUDSIGNAL_LOG_KEY": _key,
    "CLOUDSIGNAL_LOG_KEY_PREVIOUS": _key,
    "CLOUDSIGNAL_WITNESSES": _witnesses,
    "CLOUDSIGNAL_VERIFY_KEY": _key,
    "CLOUDSIGNAL_DEBUG": _flag,
    "CLOUDSIGNAL_DEMO": _flag,
    "DATABASE_URL": _database,
    "DATABASE_OWNER_URL": _database,
    "DATABASE_DELETE_URL": _database,
    "DATABASE_INGEST_URL": _database,
    "REDIS_URL": _redis,
    "MQTT_UPSTREAM_URL": _upstream,
    "EDGE_NODE": _node,
    "EDGE_MQTTS": _address,
    "EDGE_WSS": _address,
    "EDGE_PLAINTEXT": _private_address,
    "EDGE_METRICS": _private_address,
    "EDGE_TLS_CERT": _file,
    "EDGE_TLS_KEY": _file,
    "EDGE_TLS_ORGS": _folder,
    "EDGE_PROXY": _private_address,
    "EDGE_LOGIN_FAILURES": _count(1_000_000),
    "EDGE_JOURNAL_MB": _count(1_000_000),
    "EDGE_TOPIC_LEVELS": _count(128),
    "EDGE_ADDRESS_CONNECTIONS": _count(10_000_000),
    "CLOUDSIGNAL_TRUSTED_PROXIES": _networks,
    "CLOUDSIGNAL_PROVIDER_NETWORKS": _networks,
}
