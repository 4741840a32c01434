"""The embedded PostgreSQL: one cluster in the data folder, TCP on loopback, SCRAM passwords, four roles.

``cloudsignal_owner`` owns the database and its tables and only migrates. ``cloudsignal_app`` is what every serving
process signs in as: no superuser, no BYPASSRLS, owner of nothing, so that row-level security holds for it.
``cloudsignal_delete`` deletes organizations whose grace period is over, and ``cloudsignal_ingest`` appends to the audit
(with BYPASSRLS, because row-level security closes COPY to the roles it binds); neither can do anything else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from cloudsignal.supervisor.account import Account
from cloudsignal.supervisor.errors import StartError
from cloudsignal.supervisor.layout import make_folder
from cloudsignal.supervisor.secret import Secrets
from cloudsignal.supervisor.state import MARK

ADMIN = "postgres"
OWNER = "cloudsignal_owner"
APP = "cloudsignal_app"
DELETE = "cloudsignal_delete"
INGEST = "cloudsignal_ingest"
DATABASE = "cloudsignal"

SETTINGS = """
# Written by `cloudsignal up` at every start; put your own settings into postgresql.own.conf beside this file.
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 120
shared_buffers = 128MB
password_encryption = 'scram-sha-256'
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] '
# Statements may hold what a tenant typed: the log names the error, never the statement.
log_min_error_statement = panic
log_parameter_max_length_on_error = 0
include_if_exists 'postgresql.own.conf'
"""


@dataclass(frozen=True, slots=True)
class Postgres:
    """One embedded cluster: its folder, programs, port and who runs it."""

    folder: Path
    programs: Path
    port: int
    secrets: Secrets
    account: Account | None

    def command(self) -> list[str]:
        """The server, to be run as a direct child."""
        return [
            str(self.programs / "bin" / "postgres"),
            "-D", str(self.folder),
            "-p", str(self.port),
            "-c", f"config_file={self.folder / 'cloudsignal.conf'}",
        ]  # fmt: skip

    def url(self, role: str) -> str:
        """The address for one of the roles, password included (the passwords are URL-safe)."""
        password = {
            OWNER: self.secrets.postgres_owner,
            APP: self.secrets.postgres_app,
            DELETE: self.secrets.postgres_delete,
            INGEST: self.secrets.postgres_ingest,
        }[role]
        return f"postgresql://{role}:{password}@127.0.0.1:{self.port}/{DATABASE}"

    def prepare(self) -> None:
        """Make the cluster at the first start and write the settings. Raises :class:`StartError` when initdb fails."""
        if not (self.folder / "PG_VERSION").exists():
            # A folder with a beginning would be taken for a cluster, so it is made beside and put in place whole.
            draft = self.folder.with_name(f"{self.folder.name}.new")
            shutil.rmtree(draft, ignore_errors=True)
            make_folder(draft, 0o700, self.account)
            self._initdb(draft)
            draft.replace(self.folder)
        self._write("cloudsignal.conf", SETTINGS)
        self._write("pg_hba.conf", "host all all 127.0.0.1/32 scram-sha-256\n")

    def _initdb(self, folder: Path) -> None:
        for leftover in self.folder.iterdir():
            raise StartError(f"{self.folder} is not empty but holds no finished cluster ({leftover.name}); remove it")
        # In a place of its own, so that one left by a start that was cut short goes with the next.
        password = self.folder.with_name(f"{self.folder.name}.pw")
        try:
            password.unlink(missing_ok=True)
            password.touch(mode=0o600)
            password.write_text(self.secrets.postgres_admin)
            if self.account:
                os.chown(password, self.account.uid, self.account.gid)
            done = subprocess.run(
                [
                    str(self.programs / "bin" / "initdb"), "-D", str(folder), "-U", ADMIN,
                    "-A", "scram-sha-256", "--pwfile", str(password),
                    "-E", "UTF8", "--locale=C.UTF-8", "--data-checksums", "--no-instructions",
                ],
                capture_output=True, text=True, check=False, cwd="/",
                env={"PATH": os.defpath, "TZ": "UTC", MARK: str(self.folder.parent)},
                user=self.account.uid if self.account else None,
                group=self.account.gid if self.account else None,
                extra_groups=[] if self.account else None,
            )  # fmt: skip
        finally:
            password.unlink(missing_ok=True)
        if done.returncode != 0:
            raise StartError(f"initdb failed: {done.stderr.strip() or done.stdout.strip()}")

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)
        if self.account:
            os.chown(path, self.account.uid, self.account.gid)

    async def provision(self) -> None:
        """Create or repair the roles and the database; safe to run at every start.

        Raises :class:`ConnectionError` when the server goes away meanwhile.
        """
        try:
            await self._provision()
        except psycopg.OperationalError as error:
            raise ConnectionError(str(error)) from None

    async def _provision(self) -> None:
        async with await self._connect("postgres", ADMIN, self.secrets.postgres_admin) as admin:
            await _role(admin, OWNER, self.secrets.postgres_owner)
            await _role(admin, APP, self.secrets.postgres_app)
            await _role(admin, DELETE, self.secrets.postgres_delete)
            await _role(admin, INGEST, self.secrets.postgres_ingest, past_row_security=True)
            rows = await admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
            if await rows.fetchone() is None:
                statement = "CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'"
                await admin.execute(sql.SQL(statement).format(sql.Identifier(DATABASE), sql.Identifier(OWNER)))
        async with await self._connect(DATABASE, ADMIN, self.secrets.postgres_admin) as admin:
            await admin.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(DATABASE)))
            await admin.execute(
                sql.SQL("GRANT CONNECT, TEMPORARY ON DATABASE {} TO {}").format(
                    sql.Identifier(DATABASE), sql.Identifier(APP)
                )
            )
            await admin.execute(sql.SQL("ALTER SCHEMA public OWNER TO {}").format(sql.Identifier(OWNER)))
            await admin.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
            database, delete = sql.Identifier(DATABASE), sql.Identifier(DELETE)
            await admin.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, delete))
            await admin.execute(
                sql.SQL("GRANT CONNECT, TEMPORARY ON DATABASE {} TO {}").format(database, sql.Identifier(INGEST))
            )
            for role in (APP, DELETE, INGEST):
                await admin.execute(sql.SQL("GRANT USAGE ON SCHEMA public TO {}").format(sql.Identifier(role)))

    async def ready(self) -> bool:
        """Whether the server takes a sign-in and a query."""
        try:
            async with await self._connect("postgres", ADMIN, self.secrets.postgres_admin) as connection:
                await connection.execute("SELECT 1")
        except (TimeoutError, psycopg.Error, OSError):
            return False
        return True

    async def _connect(self, database: str, role: str, password: str) -> psycopg.AsyncConnection:
        return await psycopg.AsyncConnection.connect(
            host="127.0.0.1", port=self.port, dbname=database, user=role, password=password,
            autocommit=True, connect_timeout=3,
        )  # fmt: skip


async def _role(admin: psycopg.AsyncConnection, name: str, password: str, *, past_row_security: bool = False) -> None:
    """Create the role when it is missing; set its password and attributes in any case."""
    rows = await admin.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name])
    verb = "CREATE" if await rows.fetchone() is None else "ALTER"
    bypass = "BYPASSRLS" if past_row_security else "NOBYPASSRLS"
    attributes = f"LOGIN NOSUPERUSER {bypass} NOCREATEDB NOCREATEROLE NOREPLICATION"
    await admin.execute(
        sql.SQL(f"{verb} ROLE {{}} {attributes} PASSWORD {{}}").format(sql.Identifier(name), sql.Literal(password))
    )
