"""``cloudsignal up``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from cloudsignal.cli.arguments import Number
from cloudsignal.cli.checks import variables
from cloudsignal.cli.outcome import CommandError
from cloudsignal.errors import quoted
from cloudsignal.supervisor.errors import StartError
from cloudsignal.supervisor.layout import default_data_folder
from cloudsignal.supervisor.options import PARTS, Options
from cloudsignal.supervisor.part import end_with_parent as tie_to_parent
from cloudsignal.supervisor.run import up as run

PORT = Number(0, 65535)


def _parts(_: click.Context, __: click.Parameter, value: str | None) -> frozenset[str]:
    chosen = frozenset(name.strip() for name in value.split(",")) if value else frozenset(PARTS)
    unknown = sorted(chosen - set(PARTS))
    if unknown:
        raise click.BadParameter(f"there is no part {quoted(unknown[0])}; the parts are {', '.join(PARTS)}")
    return chosen


def data_folder(data: Path | None, name: str) -> Path:
    """The data folder that ``--data``, CLOUDSIGNAL_DATA or ``--name`` choose, in this order; absolute."""
    chosen = data or Path(os.environ.get("CLOUDSIGNAL_DATA", "").strip() or default_data_folder(name))
    try:
        return chosen.expanduser().absolute()
    except RuntimeError:
        raise click.UsageError(f"{chosen}: there is no such user") from None


@click.command()
@click.option("--demo", is_flag=True, help="Add two sample organizations and a small simulated fleet.")
@click.option("--name", help="Name of the data folder in the default place.  [default: default, or demo with --demo]")
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="Data folder, instead of --name.")
@click.option("--listen", help="Address of the mqtts and wss listeners.  [default: 0.0.0.0, or 127.0.0.1 with --demo]")
@click.option("--web-port", type=PORT, help="Dashboard, on localhost.  [default: 8000 or the next free one]")
@click.option("--mqtts-port", type=PORT, help="MQTT over TLS.  [default: 8883 or the next free one]")
@click.option("--wss-port", type=PORT, help="MQTT over secure WebSocket.  [default: 8443 or the next free one]")
@click.option("--edges", type=Number(1, 64), help="Edge processes.  [default: 1, or 2 with --demo]")
@click.option("--end-with-parent", is_flag=True, hidden=True, help="Stop when the program that started this ends.")
@click.option("--parts", callback=_parts, metavar="A,B,...", help=f"Run only some of: {', '.join(PARTS)}.")
def up(
    *,
    demo: bool,
    name: str | None,
    data: Path | None,
    listen: str | None,
    web_port: int | None,
    mqtts_port: int | None,
    wss_port: int | None,
    edges: int | None,
    parts: frozenset[str],
    end_with_parent: bool,
) -> int:
    """Run CloudSignal on this machine until Ctrl-C.

    Starts all parts: PostgreSQL, Valkey, an MQTT broker, the dashboard, workers and the edge. Set DATABASE_URL,
    REDIS_URL or MQTT_UPSTREAM_URL to use a server of your own instead of the embedded one.

    A port given here must be free; 0 takes any free one.
    """
    options = Options(
        data=data_folder(data, name or ("demo" if demo else "default")),
        listen=listen or ("127.0.0.1" if demo else "0.0.0.0"),  # noqa: S104 - TLS only
        web_port=web_port,
        mqtts_port=mqtts_port,
        wss_port=wss_port,
        edges=edges or (2 if demo else 1),
        parts=parts,
        demo=demo,
    )
    if demo and parts != frozenset(PARTS):
        raise click.UsageError("--demo needs all parts; leave --parts out")
    if demo and os.environ.get("EDGE_MQTTS", "").strip().lower() == "off":
        raise click.UsageError("--demo needs mqtts; leave EDGE_MQTTS out")
    variables.refuse(os.environ)
    if end_with_parent:
        tie_to_parent()
    try:
        return run(options, os.environ)
    except StartError as error:
        raise CommandError(str(error)) from None
