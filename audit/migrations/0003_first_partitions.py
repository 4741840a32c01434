"""The partitions of the first days are there before the first event.

Without them the first events of a new installation lie in the default partition until the first periodic task moves
them, and a change that is being written at that very moment is refused: its row was on its way to the default one.
"""

from django.db import migrations

AHEAD = 3
"""Days after today; from then on ``audit.tasks.ensure_partitions`` keeps as many ahead."""

MAKE = f"""
SELECT audit_ensure_partition((now() AT TIME ZONE 'UTC')::date + ahead) FROM generate_series(0, {AHEAD}) AS ahead
"""  # noqa: S608 - SQL of constants


class Migration(migrations.Migration):
    dependencies = [("audit", "0002_journal")]

    operations = [migrations.RunSQL(MAKE, migrations.RunSQL.noop)]
