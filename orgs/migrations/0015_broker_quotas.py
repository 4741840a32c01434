"""Quotas on what an organization leaves at the broker. Columns with a constant default rewrite no row."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("orgs", "0014_deletion_role"),
    ]

    operations = [
        migrations.AddField(
            model_name="organization",
            name="retained_messages",
            field=models.PositiveIntegerField(default=10_000),
        ),
        migrations.AddField(
            model_name="organization",
            name="retained_bytes",
            field=models.PositiveIntegerField(default=16_777_216),
        ),
        migrations.AddField(
            model_name="organization",
            name="stored_sessions",
            field=models.PositiveIntegerField(default=1_000),
        ),
    ]
