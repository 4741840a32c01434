"""Django configuration of the app."""

from django.apps import AppConfig

from cloudsignal.health import views


class AclConfig(AppConfig):
    """Policies, versions, deployments, clusters."""

    name = "acl"
    verbose_name = "Policies, versions, deployments, clusters"

    def ready(self) -> None:
        """``/readyz`` says what edge nodes say of their brokers."""
        from acl.brokers import readiness  # models are there only now

        views.TOLD["brokers"] = readiness
