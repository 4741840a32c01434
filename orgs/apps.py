"""Django configuration of the app."""

from django.apps import AppConfig


class OrgsConfig(AppConfig):
    """Organizations, people, credentials."""

    name = "orgs"
    verbose_name = "Organizations, people, credentials"
