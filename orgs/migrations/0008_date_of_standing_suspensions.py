"""Give organizations that are suspended already a date of it."""

from __future__ import annotations

from django.db import migrations

FILL = (
    "SELECT set_config('cloudsignal.platform', 'on', true)",
    "UPDATE orgs_organization SET suspended_at = now() WHERE status = 'suspended' AND suspended_at IS NULL",
    "SELECT set_config('cloudsignal.platform', '', true)",
)


class Migration(migrations.Migration):
    """Data only."""

    dependencies = [
        ("orgs", "0007_suspended_at"),
    ]

    operations = [
        migrations.RunSQL(list(FILL), migrations.RunSQL.noop),
    ]
