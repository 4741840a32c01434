"""The platform as a Django app: the outbox lives here."""

from django.apps import AppConfig


class CloudSignalConfig(AppConfig):
    """Platform tables and tasks."""

    name = "cloudsignal"
    verbose_name = "CloudSignal"
