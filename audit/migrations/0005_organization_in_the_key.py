"""The key of an event begins with its organization, and no event is without one.

What belongs to no organization has the reserved id ``platform``. The new key takes the place of two indexes, the old
key and ``audit_event_org_ts``. It is built in this transaction, for as long as PostgreSQL needs for one index of the
table; nothing is stored meanwhile (the events wait in the stream). For large tables docs/operations.md has statements
that build it beforehand, partition by partition, beside a running system.

``log_index`` and ``salt`` are the place of a row in its organization's transparency log; NULL: recorded before the log.
"""

# ruff: noqa: S608 - SQL of constants

from django.db import migrations, models

from cloudsignal import ids

PLATFORM = f"'{ids.PLATFORM_ORG}'"

FORWARD = [
    "SELECT set_config('cloudsignal.platform', 'on', true)",
    f"UPDATE audit_event SET org_id = {PLATFORM} WHERE org_id IS NULL",
    "ALTER TABLE audit_opensession ADD COLUMN org varchar(16)",
    "UPDATE audit_opensession AS o SET org = e.org_id FROM audit_event AS e WHERE e.ts = o.ts AND e.id = o.event",
    f"UPDATE audit_opensession SET org = {PLATFORM} WHERE org IS NULL",
    "ALTER TABLE audit_opensession ALTER COLUMN org SET NOT NULL",
    "ALTER TABLE audit_event ALTER COLUMN org_id SET NOT NULL",
    "ALTER TABLE audit_event DROP CONSTRAINT audit_event_pkey",
    "ALTER TABLE audit_event ADD CONSTRAINT audit_event_pkey PRIMARY KEY (org_id, ts, id)",
    "DROP INDEX audit_event_org_ts",
    "CREATE INDEX audit_event_ts ON audit_event USING brin (ts) WITH (pages_per_range = 32, autosummarize = on)",
    "ALTER TABLE audit_event ADD COLUMN log_index bigint, ADD COLUMN salt bytea",
    "SELECT set_config('cloudsignal.platform', '', true)",
]
BACK = [
    "SELECT set_config('cloudsignal.platform', 'on', true)",
    "ALTER TABLE audit_event DROP COLUMN log_index, DROP COLUMN salt",
    "DROP INDEX audit_event_ts",
    "CREATE INDEX audit_event_org_ts ON audit_event (org_id, ts, id)",
    "ALTER TABLE audit_event DROP CONSTRAINT audit_event_pkey",
    "ALTER TABLE audit_event ADD CONSTRAINT audit_event_pkey PRIMARY KEY (ts, id)",
    "ALTER TABLE audit_event ALTER COLUMN org_id DROP NOT NULL",
    f"UPDATE audit_event SET org_id = NULL WHERE org_id = {PLATFORM}",
    "ALTER TABLE audit_opensession DROP COLUMN org",
    "SELECT set_config('cloudsignal.platform', '', true)",
]


class Migration(migrations.Migration):
    dependencies = [("audit", "0004_open_sessions")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL(FORWARD, BACK)],
            state_operations=[
                migrations.RemoveIndex("event", "audit_event_org_ts"),
                # Only the state has an operation for a key; the statements above are what happens.
                migrations.RemoveField("event", "pk"),
                migrations.AlterField("event", "org_id", models.CharField(default=ids.PLATFORM_ORG, max_length=16)),
                migrations.AddField(
                    "event",
                    "pk",
                    models.CompositePrimaryKey(
                        "org_id", "ts", "id", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                migrations.AddField("event", "log_index", models.BigIntegerField(null=True)),
                migrations.AddField("event", "salt", models.BinaryField(null=True)),
                migrations.AddField("opensession", "org", models.CharField(max_length=16)),
            ],
        ),
    ]
