"""The transparency log: queued and placed leaves, hashes of the tree above them, checkpoints.

A row names its leaf (``log_leaf``) in the transaction that writes both; ``audit_log_place`` gives leaves their index.
It is the only way out of the queue: the application's role may add to every table here, and change or delete nothing.
"""

# ruff: noqa: S608 - SQL of constants

from django.db import migrations

from cloudsignal.tenancy import rls

APP = rls.app_role()
TABLES = ("audit_log_queue", "audit_log_leaves", "audit_log_hash", "audit_log_checkpoint")

CREATE = """
CREATE SEQUENCE audit_log_run INCREMENT BY 8192 START WITH 8192 MINVALUE 8192 CACHE 1;
CREATE TABLE audit_log_queue (
    org_id varchar(16) NOT NULL,
    run bigint NOT NULL DEFAULT nextval('audit_log_run'),
    entries bytea NOT NULL CHECK (octet_length(entries) BETWEEN 32 AND 262144 AND octet_length(entries) % 32 = 0),
    PRIMARY KEY (org_id, run)
);
CREATE TABLE audit_log_leaves (
    org_id varchar(16) NOT NULL,
    start bigint NOT NULL,
    run bigint NOT NULL,
    entries bytea NOT NULL,
    PRIMARY KEY (org_id, start),
    UNIQUE (org_id, run)
);
CREATE TABLE audit_log_hash (
    org_id varchar(16) NOT NULL,
    level smallint NOT NULL CHECK (level BETWEEN 1 AND 7),
    position bigint NOT NULL,
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (org_id, level, position)
);
CREATE TABLE audit_log_checkpoint (
    org_id varchar(16) NOT NULL,
    size bigint NOT NULL,
    root bytea NOT NULL CHECK (octet_length(root) = 32),
    note bytea NOT NULL,
    at timestamptz NOT NULL,
    leaf bigint,
    PRIMARY KEY (org_id, size)
);
CREATE TABLE audit_log_key (
    public bytea PRIMARY KEY CHECK (octet_length(public) = 32),
    first_used_at timestamptz NOT NULL
);
ALTER TABLE audit_log_leaves ALTER COLUMN entries SET STORAGE EXTERNAL;
"""

PLACE = """
CREATE FUNCTION audit_log_place(runs integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    placed bigint;
BEGIN
    IF current_setting('cloudsignal.platform', true) IS DISTINCT FROM 'on' THEN
        RAISE EXCEPTION 'leaves are placed in a platform scope';
    END IF;
    PERFORM pg_advisory_xact_lock(4081600414);
    WITH taken AS (
        DELETE FROM audit_log_queue WHERE (org_id, run) IN (
            SELECT org_id, run FROM audit_log_queue ORDER BY run LIMIT runs
        ) RETURNING org_id, run, entries
    )
    INSERT INTO audit_log_leaves (org_id, start, run, entries)
    SELECT t.org_id,
        coalesce(l.next, 0)
            + sum(octet_length(t.entries) / 32) OVER (PARTITION BY t.org_id ORDER BY t.run)
            - octet_length(t.entries) / 32,
        t.run, t.entries
    FROM taken t LEFT JOIN LATERAL (
        SELECT start + octet_length(entries) / 32 AS next FROM audit_log_leaves
        WHERE org_id = t.org_id ORDER BY start DESC LIMIT 1
    ) l ON true;
    GET DIAGNOSTICS placed = ROW_COUNT;
    RETURN placed;
END $$;
"""

GRANTS = f"""
REVOKE ALL ON {", ".join(TABLES)}, audit_log_key FROM {APP};
GRANT SELECT, INSERT ON audit_log_queue, audit_log_hash, audit_log_checkpoint, audit_log_key TO {APP};
GRANT SELECT ON audit_log_leaves TO {APP};
REVOKE ALL ON FUNCTION audit_log_place(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit_log_place(integer) TO {APP};
"""

DROP = f"""
DROP FUNCTION audit_log_place(integer);
DROP TABLE {", ".join(TABLES)}, audit_log_key;
DROP SEQUENCE audit_log_run;
"""


class Migration(migrations.Migration):
    dependencies = [("audit", "0006_rows_never_change")]

    operations = [
        migrations.RunSQL(CREATE + PLACE, DROP),
        *(rls.tenant_table(table) for table in TABLES),
        migrations.RunSQL(GRANTS, migrations.RunSQL.noop),
        migrations.RenameField("event", "log_index", "log_leaf"),
    ]
