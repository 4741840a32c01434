"""The databases for tests that run Django in the test process: embedded PostgreSQL and Valkey, started on first use.

Addresses and keys must be known when the settings load, long before any test runs. So they are chosen at once and the
servers are started when the first test asks for the database.
"""

from __future__ import annotations

import os
from pathlib import Path

import psycopg
import redis
from psycopg import sql

from cloudsignal.supervisor import state
from cloudsignal.supervisor.account import service_accounts
from cloudsignal.supervisor.layout import Layout
from cloudsignal.supervisor.ports import Ports
from cloudsignal.supervisor.postgres import ADMIN, APP, DATABASE, DELETE, INGEST, OWNER, Postgres
from cloudsignal.supervisor.secret import load_or_make
from cloudsignal.supervisor.valkey import Valkey
from tests.support.process import Up, temporary_data_folder

TEST_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "200"}
"""A test database need not survive a power cut."""

FEW = 1_000
"""Rows that are deleted in a third of the time that a new file takes; more of them would leave a file of dead rows."""

KEEP = ("django_migrations",)
"""Tables that emptying never touches."""


class Databases:
    """PostgreSQL and Valkey of this test session."""

    def __init__(self) -> None:
        self.data = temporary_data_folder("tests")
        layout = Layout(self.data, service_accounts())
        layout.create()
        self.secrets = load_or_make(layout.secrets)
        ports = Ports()
        self.postgres = Postgres(layout.postgres, Path(), ports.private(), self.secrets, layout.account("postgres"))
        self.valkey = Valkey(layout.valkey, Path(), ports.private(), self.secrets.valkey, layout.account("valkey"))
        state.write(layout.state, {"ports": {"postgres": self.postgres.port, "valkey": self.valkey.port}})
        self.up = Up(self.data, "--parts", "postgres,valkey")
        self.started = False
        self._initial: dict[str, bytes] = {}

    def export(self) -> None:
        """Put everything that the settings read into the environment of this process."""
        os.environ.update(
            CLOUDSIGNAL_DATA=str(self.data),
            CLOUDSIGNAL_SECRET_KEY=self.secrets.django_key,
            CLOUDSIGNAL_PEPPER=self.secrets.pepper,
            CLOUDSIGNAL_SIGNING_KEY=self.secrets.signing_key,
            CLOUDSIGNAL_VERIFY_KEY=self.secrets.verify_key,
            CLOUDSIGNAL_LOG_KEY=self.secrets.log_key,
            CLOUDSIGNAL_PUBLIC_URL="http://localhost:8000",
            CLOUDSIGNAL_MQTT_HOST="localhost",
            DATABASE_URL=self.postgres.url(APP),
            DATABASE_OWNER_URL=self.postgres.url(OWNER),
            DATABASE_DELETE_URL=self.postgres.url(DELETE),
            DATABASE_INGEST_URL=self.postgres.url(INGEST),
            REDIS_URL=self.valkey.url(),
            DJANGO_SETTINGS_MODULE="cloudsignal.settings",
        )

    def start(self) -> None:
        """Start both servers; does nothing the second time."""
        if self.started:
            return
        self.up.start()
        ports = self.up.wait_ready()["ports"]
        wanted = {"postgres": self.postgres.port, "valkey": self.valkey.port}
        assert {name: ports[name] for name in wanted} == wanted, f"a port was taken meanwhile: {ports}"
        with self.admin() as admin:
            for name, value in TEST_SETTINGS.items():
                admin.execute(sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(value)))
            admin.execute("SELECT pg_reload_conf()")
        self.started = True

    def stop(self) -> None:
        """Stop both and delete their data."""
        self.up.remove()

    def admin(self) -> psycopg.Connection:
        """A superuser's connection, which row-level security does not bind: for looking behind the curtain only."""
        return psycopg.connect(
            host="127.0.0.1", port=self.postgres.port, dbname=DATABASE, user=ADMIN,
            password=self.secrets.postgres_admin, autocommit=True,
        )  # fmt: skip

    def redis(self) -> redis.Redis:
        """A client of the test session's Valkey."""
        return redis.Redis.from_url(self.valkey.url())

    def remember(self) -> None:
        """Keep the rows that migrations have put in, to restore them after each :meth:`empty`."""
        with self.admin() as admin:
            for table in self._filled(admin):
                with admin.cursor().copy(sql.SQL("COPY {} TO STDOUT").format(sql.Identifier(table))) as copy:
                    self._initial[table] = b"".join(bytes(chunk) for chunk in copy)

    def empty(self) -> None:
        """Bring every table back to what it held after the migrations."""
        with self.admin() as admin:
            admin.execute("SET lock_timeout = '10s'")
            filled = self._filled(admin)
            if not filled:
                return
            with admin.transaction():
                admin.execute("SET LOCAL session_replication_role = replica")  # no foreign keys, no triggers
                for table in map(sql.Identifier, filled):
                    if admin.execute(sql.SQL("DELETE FROM {}").format(table)).rowcount > FEW:
                        admin.execute(sql.SQL("TRUNCATE {} CASCADE").format(table))
                for table, rows in self._initial.items():
                    with admin.cursor().copy(sql.SQL("COPY {} FROM STDIN").format(sql.Identifier(table))) as copy:
                        copy.write(rows)

    def _filled(self, admin: psycopg.Connection) -> list[str]:
        """The tables that hold rows (of a partitioned table only the parent)."""
        rows = admin.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
            "AND relkind IN ('r', 'p') AND NOT relispartition AND relname <> ALL(%s) ORDER BY 1",
            [list(KEEP)],
        ).fetchall()
        tables = [str(row[0]) for row in rows]
        if not tables:
            return []
        questions = sql.SQL(", ").join(
            sql.SQL("EXISTS (SELECT 1 FROM {})").format(sql.Identifier(name)) for name in tables
        )
        answers = admin.execute(sql.SQL("SELECT ") + questions).fetchone()
        return [name for name, holds in zip(tables, answers or (), strict=True) if holds]
