"""``cloudsignal audit witness add | serve``: have the log witnessed from outside, or witness another's."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import click
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.log.signing import Cosigner
from audit.log.verifier import COSIGNATURE, ED25519, Key, VerifyError, parse_key
from audit.log.witness import parse_witnesses
from cloudsignal.cli.outcome import CommandError, Exit, json_option, print_json
from cloudsignal.config import Environment
from cloudsignal.errors import quoted

file_option = click.option(
    "--file", "path", envvar="CLOUDSIGNAL_WITNESSES", required=True, metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The list of witnesses that the workers read.  [env: CLOUDSIGNAL_WITNESSES]",
)  # fmt: skip


@click.group()
def witness() -> None:
    """Witnesses of the audit log: other machines that remember what was signed."""


@witness.command()
@click.argument("url")
@click.argument("vkey")
@file_option
@json_option
def add(*, url: str, vkey: str, path: Path, as_json: bool) -> int:
    """Add the witness at URL with the verifier key VKEY. Workers ask it from their next round on."""
    key = _key(vkey, COSIGNATURE)
    parts = urlsplit(url)
    local = parts.hostname in {"localhost", "127.0.0.1", "::1"}
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise CommandError(f"{quoted(url)} is no URL of a witness; write https://HOST, or http://localhost", Exit.USAGE)
    try:
        known = parse_witnesses(path.read_text("utf-8")) if path.exists() else []
        if any(there.vkey == key.vkey for _, there in known):
            raise CommandError(f"{path} lists the witness {key.name} already; it needs no second line", Exit.USAGE)
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{url.rstrip('/')} {key.vkey}\n")
    except (OSError, VerifyError) as error:
        raise CommandError(f"{path}: {error}", Exit.USAGE) from None
    if as_json:
        print_json({"file": str(path), "witnesses": len(known) + 1})
    else:
        click.echo(f"{key.name} is witness {len(known) + 1} in {path}")
    return Exit.FINE


@witness.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Folder of the witness's key and of what it saw; made when missing.")  # fmt: skip
@click.option("--name", required=True, metavar="NAME", help="Name of the witness, such as witness.example.com/w1.")
@click.option("--log", "logs", required=True, multiple=True, metavar="VKEY", help="Verifier key of a log to witness.")
@click.option("--listen", default="127.0.0.1:8555", metavar="HOST:PORT", help="A loopback or private address.",
              show_default=True)  # fmt: skip
@json_option
def serve(*, data: Path, name: str, logs: tuple[str, ...], listen: str, as_json: bool) -> int:
    """Witness logs (C2SP tlog-witness): remember each log's newest checkpoint and cosign what continues it."""
    from cloudsignal.cli.witness_server import InUseError, WitnessServer, WitnessState

    keys = [_key(each, ED25519) for each in logs]
    address = Environment({"--listen": listen}).address("--listen", "off", private=True)
    if address is None:
        raise CommandError("--listen is off; write HOST:PORT, such as 127.0.0.1:8555", Exit.USAGE)
    cosigner = Cosigner(name, _private_key(data))
    try:
        server = WitnessServer((address.host, address.port), WitnessState(data / "seen.json"), cosigner, keys)
    except InUseError as error:
        raise CommandError(str(error), Exit.USAGE) from None
    except (OSError, ValueError) as error:
        raise CommandError(f"{address}: {error}", Exit.USAGE) from None
    where = f"http://{address.host}:{server.server_address[1]}"
    if as_json:
        print_json({"url": where, "key": cosigner.key.vkey})
    else:
        click.echo(f"{where} {cosigner.key.vkey}")
    with suppress(KeyboardInterrupt):
        server.serve_forever()
    return Exit.FINE


def _key(vkey: str, kind: int) -> Key:
    try:
        return parse_key(vkey, kind)
    except VerifyError as error:
        raise CommandError(str(error), Exit.USAGE) from None


def _private_key(data: Path) -> Ed25519PrivateKey:
    """The witness's own key, made at the first start (mode 0600)."""
    path = data / "key"
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(32) + "\n")
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text().strip()))
    except (OSError, ValueError) as error:
        raise CommandError(f"{path}: {error}", Exit.USAGE) from None
