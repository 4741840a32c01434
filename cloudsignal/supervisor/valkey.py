"""The embedded Valkey: append-only file on, nothing evicted, password, loopback only."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import psutil
import redis.asyncio
from redis.exceptions import RedisError

from cloudsignal.supervisor.account import Account

SETTINGS = """\
# Written by `cloudsignal up` at every start; put your own settings into own.conf beside this file.
bind 127.0.0.1
port {port}
dir {folder}
requirepass {password}
# An answered write is in the kernel's hands: it survives the end of the process, and all but the last second of
# writes survives a power cut.
appendonly yes
appendfsync everysec
save ""
# Streams and queues are not a cache: when memory ends, writing fails and says so. Reading goes on, so clients sign
# in; audit waits in the edges' journals, and the API answers 503 to what it may not do twice.
maxmemory {memory}
maxmemory-policy noeviction
protected-mode yes
daemonize no
logfile ""
include {folder}/own.conf
"""


MEMORY_LEAST, MEMORY_MOST = 256 * 1024 * 1024, 2 * 1024 * 1024 * 1024
"""Bytes that it may hold: a quarter of the machine's memory, within these."""


@dataclass(frozen=True, slots=True)
class Valkey:
    """One embedded server: its folder, program, port and who runs it."""

    folder: Path
    program: Path
    port: int
    password: str
    account: Account | None

    def command(self) -> list[str]:
        """The server, to be run as a direct child."""
        return [str(self.program), str(self.folder / "valkey.conf")]

    def url(self) -> str:
        """The address with its password (which is URL-safe)."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def prepare(self) -> None:
        """Write the configuration; it holds the password, so it is readable by the server's account only."""
        own = self.folder / "own.conf"
        own.touch()
        path = self.folder / "valkey.conf"
        path.touch(mode=0o600)
        values = {"port": self.port, "folder": self.folder, "password": self.password, "memory": memory()}
        path.write_text(SETTINGS.format(**values))
        for file in (own, path):
            file.chmod(0o600)
            if self.account:
                os.chown(file, self.account.uid, self.account.gid)

    async def ready(self) -> bool:
        """Whether the server answers and has loaded its file (it answers LOADING until then)."""
        return await answers(self.url())


def memory() -> int:
    """``maxmemory`` of this machine, in bytes; ``own.conf`` overrides it."""
    return min(max(int(psutil.virtual_memory().total) // 4, MEMORY_LEAST), MEMORY_MOST)


async def answers(url: str) -> bool:
    """Whether a Redis or Valkey answers PING at ``url``."""
    client = redis.asyncio.Redis.from_url(url, socket_connect_timeout=2, socket_timeout=2)
    try:
        return bool(await client.ping())
    except (RedisError, OSError):
        return False
    finally:
        await client.aclose()
