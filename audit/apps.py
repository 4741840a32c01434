"""Django configuration of the app."""

from django.apps import AppConfig


class AuditConfig(AppConfig):
    """Audit events."""

    name = "audit"
    verbose_name = "Audit events"
