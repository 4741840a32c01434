"""How many events of each run of an edge process are stored: a gap becomes visible."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("audit", "0001_events")]

    operations = [
        migrations.CreateModel(
            name="Journal",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "node", "incarnation", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("node", models.CharField(max_length=128)),
                ("incarnation", models.CharField(max_length=36)),
                ("stored", models.BigIntegerField(default=0)),
                ("lost", models.BigIntegerField(default=0)),
                ("first_at", models.DateTimeField()),
                ("last_at", models.DateTimeField()),
            ],
        ),
    ]
