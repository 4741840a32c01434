"""No role of the application may change a row of the audit: repetitions of a folded denial are rows of their own.

The index of ``repeats`` holds these rows only, of which there are none yet. Going back leaves their counts in them.
"""

from django.db import migrations, models

from cloudsignal.tenancy import rls

APP = rls.app_role()


class Migration(migrations.Migration):
    dependencies = [("audit", "0005_organization_in_the_key")]

    operations = [
        migrations.AddField("event", "repeats", models.UUIDField(null=True)),
        migrations.AddIndex(
            "event",
            models.Index(
                condition=models.Q(("repeats__isnull", False)),
                fields=["org_id", "repeats"],
                name="audit_event_repeats",
            ),
        ),
        migrations.RunSQL(
            f"REVOKE UPDATE (count) ON audit_event FROM {APP}", f"GRANT UPDATE (count) ON audit_event TO {APP}"
        ),
    ]
