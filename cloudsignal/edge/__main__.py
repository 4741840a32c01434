"""``python -m cloudsignal.edge``: run one edge process until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import logging
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import uvloop

from cloudsignal.config import ConfigError, Environment
from cloudsignal.edge import metrics
from cloudsignal.edge.node import Node
from cloudsignal.edge.settings import Settings, read_settings
from cloudsignal.edge.transport.certificates import CertificateError, Certificates
from cloudsignal.edge.transport.connection import Client
from cloudsignal.edge.transport.listener import Listener, ListenError
from cloudsignal.edge.transport.websocket import WebSocketClient
from cloudsignal.logs import JsonFormatter

logger = logging.getLogger("cloudsignal.edge")


def main() -> int:
    """Exit code 0 after a drained stop, 2 when the configuration is wrong, 4 when an address is taken."""
    output = logging.StreamHandler(sys.stderr)
    output.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[output], level=logging.INFO)
    try:
        settings = read_settings(Environment())
        lock = _lock(settings.data)
        certificates = Certificates(settings.certificate, settings.key, settings.organization_certificates)
        uvloop.run(_run(settings, certificates))
        os.close(lock)
    except (ConfigError, CertificateError) as error:
        print(f"edge: {error}", file=sys.stderr)
        return 2
    except ListenError as error:
        print(f"edge: {error}", file=sys.stderr)
        return 4
    return 0


async def _run(settings: Settings, certificates: Certificates) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    loop.add_signal_handler(signal.SIGHUP, certificates.reload)
    # Policies are compiled in a thread: the loop asks for the interpreter back sooner than by default (5 ms).
    sys.setswitchinterval(0.0005)
    node = Node(settings)
    await node.start()
    with suppress(TimeoutError):
        # Give Redis a moment, so that the first clients meet the newest bundles; without it those on disk are active.
        await asyncio.wait_for(node.consumer.in_step.wait(), 3.0)
    scrape = await metrics.serve(node, settings.metrics) if settings.metrics is not None else None
    listeners = _listen(node, settings, certificates)
    timeouts = loop.create_task(_watch(certificates))
    gc.freeze()
    logger.info("%s enforces %d organizations", node.name, len(node.desired.organizations))
    await stop.wait()
    logger.info("%s drains %d sessions", node.name, len(node.clients))
    timeouts.cancel()
    for listener in listeners:
        listener.close()
    if scrape is not None:
        scrape.close()
    await node.stop()


def _listen(node: Node, settings: Settings, certificates: Certificates) -> list[Listener]:
    listeners: list[Listener] = []
    if settings.mqtts is not None:
        listeners.append(Listener(node, settings.mqtts, "mqtts", Client, certificates))
    if settings.wss is not None:
        listeners.append(Listener(node, settings.wss, "wss", WebSocketClient, certificates))
    if settings.proxy is not None:
        listeners.append(Listener(node, settings.proxy, "mqtts", Client, None, proxied=True))
    if settings.plaintext is not None:
        listeners.append(Listener(node, settings.plaintext, "mqtt", Client, None))
    return listeners


async def _watch(certificates: Certificates) -> None:
    while True:
        await asyncio.sleep(5.0)
        with suppress(OSError):
            certificates.reload_if_changed()


def _lock(folder: Path) -> int:
    """Two processes with one name would mix their journals: the second is refused."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ConfigError(f"EDGE_NODE: another process already uses {folder}") from None
    return lock


if __name__ == "__main__":
    sys.exit(main())
