"""The whole system for tests: ``cloudsignal up`` with two edges on free ports, and what tests ask of it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import redis

from cloudsignal.config import VARIABLES
from cloudsignal.supervisor.part import PROJECT
from cloudsignal.supervisor.postgres import ADMIN, APP, DATABASE, OWNER
from cloudsignal.supervisor.secret import Secrets, load_or_make
from tests.support.process import StackError, Up, clean_environment, temporary_data_folder

HOST = "127.0.0.1"


class Stack(Up):
    """A running CloudSignal. Ports, addresses and keys are read from its data folder."""

    def __init__(self, *options: str, edges: int = 2) -> None:
        ports = ("--web-port", "0", "--mqtts-port", "0", "--wss-port", "0")
        super().__init__(temporary_data_folder("stack"), "--listen", HOST, *ports, "--edges", str(edges), *options)
        self.host = HOST

    @property
    def ports(self) -> dict[str, int]:
        """``web``, ``mqtts``, ``wss``, ``postgres``, ``valkey``."""
        ports: dict[str, int] = self.run_state()["ports"]
        return ports

    @property
    def url(self) -> str:
        """The dashboard, without a slash at the end."""
        return str(self.run_state()["urls"]["web"])

    @property
    def mqtts_port(self) -> int:
        """Both edges listen here."""
        return self.ports["mqtts"]

    @property
    def ca(self) -> Path:
        """What clients verify the edge with."""
        return Path(str(self.run_state()["ca"]))

    @property
    def nodes(self) -> list[str]:
        """The names of the edges."""
        return [str(name) for name in self.run_state()["nodes"]]

    @property
    def secrets(self) -> Secrets:
        """The installation's secrets."""
        return load_or_make(self.data / "secrets")

    @property
    def redis_url(self) -> str:
        """The embedded Valkey."""
        return f"redis://:{self.secrets.valkey}@{HOST}:{self.ports['valkey']}/0"

    def redis(self) -> redis.Redis:
        """A client of the embedded Valkey."""
        return redis.Redis.from_url(self.redis_url)

    def database_url(self, role: str = APP) -> str:
        """The embedded PostgreSQL as the application, the owner or the superuser."""
        secrets = self.secrets
        password = {APP: secrets.postgres_app, OWNER: secrets.postgres_owner, ADMIN: secrets.postgres_admin}[role]
        return f"postgresql://{role}:{password}@{HOST}:{self.ports['postgres']}/{DATABASE}"

    @contextlib.contextmanager
    def admin(self) -> Iterator[psycopg.Connection]:
        """A superuser's connection: for looking behind the curtain only."""
        with psycopg.connect(self.database_url(ADMIN), autocommit=True) as connection:
            yield connection

    def django_environment(self) -> dict[str, str]:
        """What a process needs to act as the application on this system."""
        secrets, ports = self.secrets, self.ports
        values = {
            "CLOUDSIGNAL_DATA": str(self.data),
            "CLOUDSIGNAL_PUBLIC_URL": self.url,
            "CLOUDSIGNAL_MQTT_HOST": "localhost",
            "CLOUDSIGNAL_MQTT_PORT": str(ports["mqtts"]),
            "CLOUDSIGNAL_WSS_PORT": str(ports["wss"]),
            "CLOUDSIGNAL_SECRET_KEY": secrets.django_key,
            "CLOUDSIGNAL_PEPPER": secrets.pepper,
            "CLOUDSIGNAL_SIGNING_KEY": secrets.signing_key,
            "CLOUDSIGNAL_VERIFY_KEY": secrets.verify_key,
            "DATABASE_URL": self.database_url(),
            "REDIS_URL": self.redis_url,
        }
        assert set(values) <= {variable.name for variable in VARIABLES}
        return values | {"DJANGO_SETTINGS_MODULE": "cloudsignal.settings"}

    def django(self, code: str, *arguments: str) -> str:
        """Run Python against this system with Django set up; returns what it printed."""
        program = "import django; django.setup()\n" + code
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            cwd=PROJECT, env=clean_environment() | self.django_environment(),
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise StackError(f"the code failed:\n{done.stderr[-3000:]}")
        return done.stdout

    def eventually(self, question: Callable[[], Any], *, seconds: float = 60.0, what: str = "it") -> Any:
        """Ask until the answer is true; returns it. Fails with the logs when it never is."""
        deadline = time.monotonic() + seconds
        while True:
            answer = question()
            if answer:
                return answer
            if time.monotonic() > deadline:
                raise StackError(f"{what} did not happen within {seconds:.0f} s\n{self.report()}")
            time.sleep(0.05)
