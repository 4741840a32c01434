"""Whether publishes are acknowledged during a split. A column with a constant default rewrites no row."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("orgs", "0016_provider_changed_by"),
    ]

    operations = [
        migrations.AddField(
            model_name="organization",
            name="publish_while_split",
            field=models.CharField(
                choices=[("accept", "Accept"), ("refuse", "Refuse")], default="accept", max_length=10
            ),
        ),
    ]
