"""Remember an operator's suspension beside the status, which a deletion overwrites."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    """Schema, and the date of the suspensions that stand."""

    dependencies = [
        ("orgs", "0006_identity_revised_index"),
    ]

    operations = [
        migrations.AddField(
            model_name="organization",
            name="suspended_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
    ]
