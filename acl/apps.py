"""Django configuration of the app."""

from django.apps import AppConfig


class AclConfig(AppConfig):
    """Policies, versions, deployments, clusters."""

    name = "acl"
    verbose_name = "Policies, versions, deployments, clusters"
