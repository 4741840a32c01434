"""When a key was replaced: it is replaced once, or its second successor would end with its overlap."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("orgs", "0011_single_sign_on"),
    ]

    operations = [
        migrations.AddField(
            model_name="apikey",
            name="rotated_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
    ]
