"""The whole system for tests: ``cloudsignal up`` with two edges on free ports, and what tests ask of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import redis

from cloudsignal.config import VARIABLES
from cloudsignal.supervisor.postgres import ADMIN, APP, DATABASE, OWNER
from cloudsignal.supervisor.secret import Secrets, load_or_make
from tests.support.process import StackError, Up, temporary_data_folder
from tests.support.shell import Shell

HOST = "127.0.0.1"


class Stack(Up):
    """A running CloudSignal. Ports, addresses and keys are read from its data folder."""

    def __init__(self, *options: str, edges: int = 2) -> None:
        ports = ("--web-port", "0", "--mqtts-port", "0", "--wss-port", "0")
        super().__init__(temporary_data_folder("stack"), "--listen", HOST, *ports, "--edges", str(edges), *options)
        self.host = HOST
        self._shell: Shell | None = None
        self._admin: psycopg.Connection | None = None

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
        """A superuser's connection: for looking behind the curtain only. One serves all questions, while it lives."""
        try:
            if self._admin is not None:
                self._admin.execute("SELECT 1")
        except psycopg.Error:  # the server was killed or started again
            self._admin = None
        if self._admin is None:
            self._admin = psycopg.connect(self.database_url(ADMIN), autocommit=True)
        yield self._admin

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
            "CLOUDSIGNAL_LOG_KEY": secrets.log_key,
            "DATABASE_URL": self.database_url(),
            "REDIS_URL": self.redis_url,
        }
        assert set(values) <= {variable.name for variable in VARIABLES}
        return values | {"DJANGO_SETTINGS_MODULE": "cloudsignal.settings"}

    def django(self, code: str, *arguments: str) -> str:
        """Run Python against this system with Django set up; returns what it printed."""
        environment = self.django_environment()  # another start may have other ports
        shell = self._shell
        if shell is None or shell.environment != environment or not shell.alive:
            self._close_shell()
            shell = self._shell = Shell(environment)
        return shell.run(code, *arguments)

    def remove(self) -> None:
        """Stop it and delete everything it wrote."""
        self._close_shell()
        if self._admin is not None:
            self._admin.close()
        super().remove()

    def _close_shell(self) -> None:
        if self._shell is not None:
            self._shell.close()
            self._shell = None

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
