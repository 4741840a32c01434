"""Data: the cluster that new organizations and self-registering nodes belong to."""

from django.db import migrations


def create(apps, schema_editor):
    apps.get_model("acl", "Cluster").objects.using(schema_editor.connection.alias).get_or_create(name="default")


def remove(apps, schema_editor):
    clusters = apps.get_model("acl", "Cluster").objects.using(schema_editor.connection.alias)
    clusters.filter(name="default", nodes=None).delete()


class Migration(migrations.Migration):
    dependencies = [("acl", "0002_policies_and_deployments")]

    operations = [migrations.RunPython(create, remove)]
