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


ROWS = """
SELECT set_config('cloudsignal.platform', 'on', false);
INSERT INTO audit_event (ts, id, org_id, kind, node, session, username, client_id, ip, port, transport, mqtt_version,
    tls_version, tls_cipher, reason, action, topic, qos, retain, size, rule, policy_digest, count, actor, target)
SELECT now() - number * interval '1 hour', gen_random_uuid(),
    CASE WHEN number % 3 = 0 THEN NULL ELSE 'org_' || repeat(chr(97 + number % 2), 12) END,
    'connect', 'edge-1', 's' || number, '', '', NULL, 0, '', '', '', '', '', '', '', 0, false, 0, '', '', 1, '', ''
FROM generate_series(1, 60) AS number;
INSERT INTO audit_opensession (session, node, incarnation, ts, event, ended, lost)
SELECT session, node, 'run', ts, id, false, false FROM audit_event;
INSERT INTO audit_opensession VALUES ('ended early', '', '', now(), NULL, true, false);
"""
"""Events of two organizations and of none, as they were before the key had the organization in it."""
OWNERS = "SELECT coalesce(org_id, 'platform'), count(*) FROM audit_event GROUP BY 1 ORDER BY 1"
OPEN = "SELECT count(*) FROM audit_opensession o JOIN audit_event e ON (e.org_id, e.ts, e.id) = (o.org, o.ts, o.event)"
KEY = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'audit_event_pkey'"


def carried_over(owner: psycopg.Connection) -> None:
    """Rows that were there before the key of events changed, over the change, back, and over it again."""
    owners = [("org_" + "a" * 12, 20), ("org_" + "b" * 12, 20), ("platform", 20)]
    migrate(("audit", "0004_open_sessions"))
    owner.execute(ROWS)
    for _ in range(2):
        assert owner.execute("SELECT count(*) FROM audit_event WHERE org_id IS NULL").fetchone() == (20,)
        assert owner.execute(KEY).fetchone() == ("PRIMARY KEY (ts, id)",)
        migrate(())
        assert owner.execute("SELECT count(*) FROM audit_event WHERE org_id IS NULL").fetchone() == (0,)
        assert owner.execute(KEY).fetchone() == ("PRIMARY KEY (org_id, ts, id)",)
        assert owner.execute(OWNERS).fetchall() == owners
        assert owner.execute(OPEN).fetchone() == (60,)
        migrate(("audit", "0004_open_sessions"))
        assert owner.execute(OWNERS).fetchall() == owners
    owner.execute("SELECT set_config('cloudsignal.platform', '', false)")
    migrate(())


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
            carried_over(owner)
            migrate(*((app, "zero") for app in ORDER))
            left = {name for name in relations(owner) if name.startswith(tuple(f"{app}_" for app in OURS))}
            assert left == set()
            migrate(())
            assert relations(owner) == before
    finally:
        with databases.admin() as admin:
            admin.execute(f"DROP DATABASE IF EXISTS {NAME} WITH (FORCE)")
