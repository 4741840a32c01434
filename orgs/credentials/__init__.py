"""MQTT identities and their credentials: issue, refresh, revoke, and bring to the edges."""
