"""Which sessions have begun and not ended: what a node that never came back has left open can be ended."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("audit", "0003_first_partitions"),
    ]

    operations = [
        migrations.CreateModel(
            name="OpenSession",
            fields=[
                ("session", models.CharField(db_collation="C", max_length=64, primary_key=True, serialize=False)),
                ("node", models.CharField(max_length=128)),
                ("incarnation", models.CharField(max_length=36)),
                ("ts", models.DateTimeField()),
                ("event", models.UUIDField(null=True)),
                ("ended", models.BooleanField(default=False)),
                ("lost", models.BooleanField(default=False)),
            ],
            options={
                "indexes": [models.Index(fields=["node", "incarnation"], name="audit_open_session_node")],
            },
        ),
    ]
