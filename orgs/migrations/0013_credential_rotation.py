"""First passwords that go on while their client refreshes, and secrets that make room for newer ones.

Every column has a constant default or none, so no row is written.
"""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    """Schema only."""

    dependencies = [
        ("orgs", "0012_key_rotated_at"),
    ]

    operations = [
        migrations.AddField(
            model_name="credential",
            name="first",
            field=models.CharField(blank=True, db_default="", default="", max_length=40),
        ),
        migrations.AddField(
            model_name="credential", name="renewed_at", field=models.DateTimeField(blank=True, null=True)
        ),
        migrations.AddField(
            model_name="credential", name="renewed_until", field=models.DateTimeField(blank=True, null=True)
        ),
        migrations.AddField(
            model_name="credential", name="retired_at", field=models.DateTimeField(blank=True, null=True)
        ),
    ]
