"""CloudSignal: a self-hosted, multi-tenant control plane for MQTT."""

__version__ = "0.1.0"
