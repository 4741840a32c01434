"""``cloudsignal doctor``: what is missing or misconfigured, and how to fix it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import click

from cloudsignal.cli.checks import machine, running, services, variables
from cloudsignal.cli.checks.result import Level, Result
from cloudsignal.cli.outcome import Exit, json_option, print_json
from cloudsignal.cli.up import data_folder
from cloudsignal.supervisor.postgres import APP, DATABASE, DELETE, INGEST

MARKS = {Level.FINE: "ok      ", Level.WARNING: "warning ", Level.PROBLEM: "problem "}


@click.command()
@click.option("--name", help="Name of the data folder.  [the one that runs, or default]")
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="Data folder, instead of --name.")
@json_option
def doctor(*, name: str | None, data: Path | None, as_json: bool) -> int:
    """Check this machine: what is missing or misconfigured, and how to fix it. Changes nothing.

    Exit code 1 when there is a problem; warnings alone do not count.
    """
    results = list(examine(_chosen(data, name), os.environ))
    problems = [result for result in results if result.level is Level.PROBLEM]
    if as_json:
        print_json({"healthy": not problems, "checks": [asdict(result) for result in results]})
    else:
        _show(results)
    return Exit.FAILED if problems else Exit.FINE


def _chosen(data: Path | None, name: str | None) -> Path:
    """The data folder that was asked for; otherwise the usual one, or the one beside it that alone is running."""
    usual = data_folder(data, name or "default")
    named = data is not None or name is not None or os.environ.get("CLOUDSIGNAL_DATA", "").strip()
    if named or running.running(usual):
        return usual
    beside = [lock.parent for lock in sorted(usual.parent.glob("*/lock")) if running.running(lock.parent)]
    return beside[0] if len(beside) == 1 else usual


def examine(data: Path, own: Mapping[str, str]) -> Iterator[Result]:
    """Every check, in the order in which a person would look."""
    yield from machine.check(data, own)
    yield from variables.check(own)
    yield from running.check(data)
    ports = running.running(data).get("ports", {})
    if database := own.get("DATABASE_URL", "").strip() or _embedded(data, ports, "postgres"):
        yield from services.check_database(database)
    for variable, role, look in (
        ("DATABASE_DELETE_URL", DELETE, services.check_deletion),
        ("DATABASE_INGEST_URL", INGEST, services.check_ingest),
    ):
        embedded = "" if own.get("DATABASE_URL", "").strip() else _embedded(data, ports, "postgres", role)
        if url := own.get(variable, "").strip() or embedded:
            yield from look(url)
    if redis := own.get("REDIS_URL", "").strip() or _embedded(data, ports, "valkey"):
        yield from services.check_redis(redis)
        yield from services.check_brokers(redis)
    if own.get("MQTT_UPSTREAM_URL", "").strip():
        yield from services.check_upstream(own)
    cert = Path(own.get("EDGE_TLS_CERT", "").strip() or data / "tls" / "edge.pem")
    key = Path(own.get("EDGE_TLS_KEY", "").strip() or data / "tls" / "edge.key")
    if own.get("EDGE_TLS_CERT") or os.path.exists(cert):
        yield from services.check_certificate(cert, key)


def _embedded(data: Path, ports: Mapping[str, int], part: str, role: str = APP) -> str:
    """The address of a running embedded part; empty when it does not run or its password cannot be read."""
    name = "valkey" if part == "valkey" else f"postgres_{role.removeprefix('cloudsignal_')}"
    try:
        password = (data / "secrets" / name).read_text().strip()
    except OSError:
        return ""
    if part not in ports:
        return ""
    if part == "valkey":
        return f"redis://:{password}@127.0.0.1:{ports[part]}/0"
    return f"postgresql://{role}:{password}@127.0.0.1:{ports[part]}/{DATABASE}"


def _show(results: list[Result]) -> None:
    colors = {Level.FINE: "green", Level.WARNING: "yellow", Level.PROBLEM: "red"}
    width = max(len(result.area) for result in results)
    for result in results:
        click.echo(f"{click.style(MARKS[result.level], fg=colors[result.level])} {result.area:<{width}}  {result.text}")
        if result.fix:
            click.echo(f"{'':<{width + 11}}-> {result.fix}")
    counts = {level: sum(result.level is level for result in results) for level in Level}
    troubles, warnings = counts[Level.PROBLEM], counts[Level.WARNING]
    click.echo(
        f"\n{troubles} problem{'' if troubles == 1 else 's'}, {warnings} warning{'' if warnings == 1 else 's'}, "
        f"{counts[Level.FINE]} fine"
    )
