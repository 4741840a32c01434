"""Live MQTT sessions of an organization: list, close, follow what a revocation closes."""
