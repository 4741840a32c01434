"""Who changed an identity provider last: a key that is revoked takes with it what it changed, not only what it made."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    """Schema only."""

    dependencies = [
        ("orgs", "0015_broker_quotas"),
    ]

    operations = [
        migrations.AddField(
            model_name="identityprovider",
            name="changed_by",
            field=models.CharField(blank=True, db_default="", default="", max_length=320),
        ),
    ]
