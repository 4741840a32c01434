"""An index that leaves expired credentials out of the counts of one organization."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("orgs", "0003_delete_organization"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="credential",
            index=models.Index(fields=["org", "expires_at"], name="orgs_credential_org_expires"),
        ),
    ]
