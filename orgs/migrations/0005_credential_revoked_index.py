"""An index for the list of revoked credentials, which are few among many."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("orgs", "0004_credential_expiry_index"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="credential",
            index=models.Index(
                condition=models.Q(("revoked_at__isnull", False)),
                fields=["org", "-issued_at", "-id"],
                name="orgs_credential_revoked",
            ),
        ),
    ]
