"""Nodes keep each broker node as the edge last reported it."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("acl", "0003_default_cluster"),
    ]

    operations = [
        migrations.AddField(
            model_name="node",
            name="brokers",
            field=models.JSONField(blank=True, db_default=models.Value([], models.JSONField()), default=list),
        ),
    ]
