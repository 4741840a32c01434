"""Migrations: complete, reversible, and run by a role that owns the tables and is no superuser."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from django.conf import settings
from django.core.management import call_command
from psycopg.conninfo import make_conninfo

from tests.support.databases import Databases

ROOT = Path(__file__).parents[2]
NAME = "cloudsignal_migrations"
OURS = ("audit", "cloudsignal", "acl", "orgs")
ORDER = ("audit", "cloudsignal", "mfa", "usersessions", "account", "acl", "orgs")
"""Back to nothing, those first that others do not need."""


@pytest.mark.django_db
def test_no_model_has_changed_without_a_migration() -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


def url(alias: str) -> str:
    entry = settings.DATABASES[alias]
    return make_conninfo(
        host=entry["HOST"], port=entry["PORT"], user=entry["USER"], password=entry["PASSWORD"], dbname=NAME
    )


def migrate(*targets: tuple[str, ...]) -> None:
    """Run ``migrate`` for each target in one process of its own, on the other database."""
    environment = {**os.environ, "DATABASE_URL": url("default"), "DATABASE_OWNER_URL": url("owner")}
    code = (
        "import django; django.setup(); from django.core.management import call_command\n"
        f"for target in {targets!r}: call_command('migrate', *target, database='owner', verbosity=0)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def relations(connection: psycopg.Connection) -> set[str]:
    rows = connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'S', 'v') "
        "UNION SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
    )
    return {str(name) for (name,) in rows}


def test_every_migration_of_ours_goes_forth_back_and_forth_again(databases: Databases) -> None:
    with databases.admin() as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {NAME}")
        admin.execute(f"CREATE DATABASE {NAME} OWNER {settings.DATABASES['owner']['USER']}")
    try:
        migrate(())
        with psycopg.connect(url("owner"), autocommit=True) as owner:
            before = relations(owner)
            first_days = owner.execute(
                "SELECT audit_ensure_partition((now() AT TIME ZONE 'UTC')::date + a) FROM generate_series(0, 2) a"
            )
            # A change that is written while the first partition is made would be refused.
            assert first_days.fetchall() == [(False,)] * 3
            migrate(*((app, "zero") for app in ORDER))
            left = {name for name in relations(owner) if name.startswith(tuple(f"{app}_" for app in OURS))}
            assert left == set()
            migrate(())
            assert relations(owner) == before
    finally:
        with databases.admin() as admin:
            admin.execute(f"DROP DATABASE IF EXISTS {NAME} WITH (FORCE)")
