"""``python -m cloudsignal.edge.brokers``: the configuration of a broker on machines of its own."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Sequence
from pathlib import Path

from acl.policy.engine.topics import MAX_LEVELS
from cloudsignal.edge.brokers import emqx, mosquitto, vernemq
from cloudsignal.edge.brokers.limits import Tls
from cloudsignal.edge.session.mountpoint import TOPIC_LEVELS

ADDRESS = "ADDRESS:PORT"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the configuration of a broker on machines of its own."""
    given = _parser().parse_args(arguments)
    host, port = given.listen
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    for path, text in _files(given, host, port, out).items():
        _write(path, text)
        print(path)
    return 0


def _files(given: argparse.Namespace, host: str, port: int, out: Path) -> dict[Path, str]:
    """Text of each file to write, by path."""
    tls = Tls(given.ca, given.cert, given.key)
    listener = _joined(host, port)
    if given.broker == "mosquitto":
        acl = out / "cloudsignal.acl"
        text = mosquitto.mosquitto_tls_config(host=host, port=port, tls=tls, acl_file=acl, data=given.data)
        return {out / "mosquitto.conf": text, acl: mosquitto.MOSQUITTO_ACL}
    if given.broker == "emqx":
        acl = out / "cloudsignal.acl.conf"
        text = emqx.emqx_config(listener=listener, tls=tls, acl_file=acl, levels=given.levels)
        return {out / "emqx-cloudsignal.conf": text, acl: emqx.emqx_acl()}
    script = out / "cloudsignal.lua"
    node = vernemq.VernemqNode(
        name=given.node or f"VerneMQ@{host}",
        cookie=_cookie(given.cookie_file or out / "cloudsignal.cookie"),
        listener=listener,
        cluster=_joined(*(given.cluster or (host, vernemq.CLUSTER_PORT))),
        status=_joined(*(given.status or (host, vernemq.STATUS_PORT))),
    )
    text = vernemq.vernemq_config(node=node, tls=tls, script=script, levels=given.levels)
    return {out / "vernemq-cloudsignal.conf": text, script: vernemq.vernemq_script()}


def _write(path: Path, text: str) -> None:
    """Replace a file by one that owner and group may read: a moment in which others may is enough for a secret."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    new.touch(0o600, exist_ok=False)
    new.chmod(0o640)
    new.write_text(text)
    new.replace(path)


def _cookie(file: Path) -> str:
    """The secret of the cluster: what ``file`` holds, or a new one that is written there."""
    if not file.exists():
        file.touch(0o600, exist_ok=False)
        file.write_text(secrets.token_hex(32) + "\n")
    return file.read_text().strip()


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    if not host or not (port.isascii() and port.isdigit() and int(port) <= 65_535):
        raise argparse.ArgumentTypeError(f"{text!r} is no address; write ADDRESS:PORT")
    return host, int(port)


def _levels(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_LEVELS):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {MAX_LEVELS}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cloudsignal.edge.brokers", description=main.__doc__)
    parser.add_argument("broker", choices=("mosquitto", "vernemq", "emqx"))
    listen = "where the broker listens for edges"
    parser.add_argument("--listen", required=True, type=_address, metavar=ADDRESS, help=listen)
    for name, text in (("ca", "the edges' authority"), ("cert", "the broker's chain"), ("key", "its key")):
        parser.add_argument(f"--{name}", required=True, type=Path, metavar="FILE", help=f"{text}, PEM, on the broker")
    parser.add_argument("--out", type=Path, default=Path(), metavar="FOLDER", help="folder to write to (this one)")
    levels = f"the edges' EDGE_TOPIC_LEVELS ({TOPIC_LEVELS}); VerneMQ and EMQX"
    parser.add_argument("--levels", type=_levels, default=TOPIC_LEVELS, metavar="N", help=levels)
    parser.add_argument("--data", type=Path, default=Path("/var/lib/mosquitto"), help="Mosquitto's folder")
    node = parser.add_argument_group("VerneMQ")
    node.add_argument("--node", metavar="NAME", help="the node's name (VerneMQ@ and the address of --listen)")
    cluster, status = f"for other nodes ({vernemq.CLUSTER_PORT})", f"for /health ({vernemq.STATUS_PORT})"
    node.add_argument("--cluster", type=_address, metavar=ADDRESS, help=f"{cluster}, as a rule at --listen's address")
    node.add_argument("--status", type=_address, metavar=ADDRESS, help=f"{status}, as a rule at --listen's address")
    node.add_argument(
        "--cookie-file",
        type=Path,
        metavar="FILE",
        help="the nodes' common secret; made when missing (cloudsignal.cookie in --out)",
    )
    return parser
