"""Drop the indexes of identities and credentials on the organization alone: others begin with it."""

from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    """Schema only."""

    dependencies = [
        ("orgs", "0009_personal_api_keys"),
    ]

    operations = [
        migrations.AlterField(
            model_name="mqttidentity",
            name="org",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="identities",
                to="orgs.organization",
            ),
        ),
        migrations.AlterField(
            model_name="credential",
            name="org",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="credentials",
                to="orgs.organization",
            ),
        ),
    ]
