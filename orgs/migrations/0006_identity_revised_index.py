"""An index for what changed lately: reconciling compares it every few seconds."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("orgs", "0005_credential_revoked_index"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="mqttidentity",
            index=models.Index(fields=["revised_at"], name="orgs_mqttidentity_revised"),
        ),
    ]
