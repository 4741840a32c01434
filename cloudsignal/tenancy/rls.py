"""Row-level security and grants as migration operations.

Every tenant table is FORCED: even its owner sees nothing outside a scope. The policies read settings of the transaction
(``cloudsignal.tenancy.scopes`` sets them); ``NULLIF(..., '')`` because PostgreSQL leaves an empty string, not
NULL, behind a setting that was local to an earlier transaction.
"""

from __future__ import annotations

from django.conf import settings
from django.db.migrations.operations import RunSQL

ORG = "NULLIF(current_setting('cloudsignal.org', true), '')"
USER = "NULLIF(current_setting('cloudsignal.user', true), '')::bigint"
API_KEY = "NULLIF(current_setting('cloudsignal.api_key', true), '')"
PLATFORM = "current_setting('cloudsignal.platform', true) = 'on'"


def app_role() -> str:
    """The application role, quoted for SQL."""
    return quoted(settings.DATABASE_APP_ROLE)


def quoted(role: str) -> str:
    """The name of a role, quoted for SQL."""
    return '"' + role.replace('"', '""') + '"'


def tenant_table(table: str, *, column: str = "org_id") -> RunSQL:
    """Force row-level security on ``table``: rows of the current organization, or all in a platform scope."""
    condition = f"{column} = {ORG} OR {PLATFORM}"
    return RunSQL(
        [
            f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
            f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
            f"CREATE POLICY tenant ON {table} USING ({condition}) WITH CHECK ({condition})",
        ],
        [
            f"DROP POLICY tenant ON {table}",
            f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY",
            f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY",
        ],
    )


def also_read(table: str, name: str, condition: str) -> RunSQL:
    """Allow reading rows of ``table`` where ``condition`` holds, for queries before the organization is known."""
    return RunSQL(
        [f"CREATE POLICY {name} ON {table} FOR SELECT USING ({condition})"],
        [f"DROP POLICY {name} ON {table}"],
    )


def tenant_foreign_key(table: str, column: str, references: str) -> RunSQL:
    """A foreign key between tenant rows, over ``(org_id, id)``: a plain one could point into another tenant."""
    name = f"{table}_{column}_same_org"
    return RunSQL(
        [
            f"ALTER TABLE {table} ADD CONSTRAINT {name} FOREIGN KEY (org_id, {column}) "
            f"REFERENCES {references} (org_id, id) DEFERRABLE INITIALLY IMMEDIATE"
        ],
        [f"ALTER TABLE {table} DROP CONSTRAINT {name}"],
    )


def grant_schema() -> RunSQL:
    """Grant the application role reading and writing of all present and future tables, but not ownership."""
    role = app_role()
    tables, sequences = "SELECT, INSERT, UPDATE, DELETE ON TABLES", "USAGE, SELECT ON SEQUENCES"
    return RunSQL(
        [
            f"GRANT USAGE ON SCHEMA public TO {role}",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
            f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {role}",
            f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT {tables} TO {role}",
            f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT {sequences} TO {role}",
        ],
        [
            f"ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE ALL ON SEQUENCES FROM {role}",
            f"ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE ALL ON TABLES FROM {role}",
        ],
    )


def revoke(table: str, privileges: str) -> RunSQL:
    """Revoke ``privileges`` on ``table`` from the application role, for rows that are never changed."""
    role = app_role()
    return RunSQL([f"REVOKE {privileges} ON {table} FROM {role}"], [f"GRANT {privileges} ON {table} TO {role}"])
