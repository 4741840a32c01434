"""``cloudsignal audit key | pack | verify | verifier``: proofs of the audit log, and checking them offline."""

from __future__ import annotations

import hashlib
from pathlib import Path

import click

from audit.log import verifier as single_file
from audit.log.verifier import COSIGNATURE, ED25519, VerifyError, parse_key, verify_file
from cloudsignal.cli.online import online
from cloudsignal.cli.outcome import CommandError, Exit, json_option, print_json
from cloudsignal.cli.server import Server, plain

output = click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="The file to write; one that exists is not overwritten.",
)  # fmt: skip


@click.command()
@click.option("--platform", is_flag=True, help="Show the keys of the platform's log of checkpoints, for witnesses.")
@online
def key(*, server: Server, platform: bool, as_json: bool) -> int:
    """Show the verifier keys of the log, newest first. Keep them apart from what they verify."""
    found = server.get("/v2/audit/log/key")
    if as_json:
        print_json({name: found[name] for name in ("origin", "keys", "platform_keys")})
    else:
        for each in found["platform_keys" if platform else "keys"]:
            click.echo(plain(each))
    return Exit.FINE


@click.command()
@click.option("--since", metavar="TIME", help="From this time on: 2026-01-31T12:00:00Z.  [a day before its end]")
@click.option("--until", metavar="TIME", help="Before this time.  [now]")
@output
@online
def pack(*, server: Server, since: str | None, until: str | None, output: Path, as_json: bool) -> int:
    """Download at most 10,000 events with the proofs that they are in the log."""
    content = server.download("/v2/audit/log/pack", since=since, until=until)
    _write(output, content)
    if as_json:
        print_json({"file": str(output), "bytes": len(content)})
    else:
        click.echo(f"wrote {output} ({len(content)} bytes)")
    return Exit.FINE


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--key", "keys", multiple=True, required=True, metavar="VKEY", help="The log's verifier key.")
@click.option("--witness", "witnesses", multiple=True, metavar="VKEY", help="A witness that must have cosigned.")
@json_option
def verify(*, file: Path, keys: tuple[str, ...], witnesses: tuple[str, ...], as_json: bool) -> int:
    """Verify a proof (.tlog-proof) or a pack offline. Names the first row that was changed, dropped, added or moved."""
    try:
        trusted = [parse_key(each, ED25519) for each in keys]
        cosigners = [parse_key(each, COSIGNATURE) for each in witnesses]
    except VerifyError as error:
        raise click.UsageError(plain(error)) from None
    try:
        said, fine = verify_file(file, trusted, cosigners), True
    except VerifyError as error:
        said, fine = f"NOT verified: {error}", False
    if as_json:
        print_json({"verified": fine, "message": said})
    else:
        click.echo(plain(said), err=not fine)
    return Exit.FINE if fine else Exit.FAILED


@click.command()
@output
@json_option
def verifier(*, output: Path, as_json: bool) -> int:
    """Write the verifier as one file that needs Python and `cryptography`, and neither CloudSignal nor a network."""
    content = Path(single_file.__file__).read_bytes()
    _write(output, content)
    digest = hashlib.sha256(content).hexdigest()
    if as_json:
        print_json({"file": str(output), "sha256": digest})
    else:
        click.echo(f"wrote {output} (SHA-256 {digest})")
    return Exit.FINE


def _write(path: Path, content: bytes) -> None:
    try:
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError:
        raise CommandError(f"{path} exists; name another file", Exit.USAGE) from None
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}", Exit.USAGE) from None
