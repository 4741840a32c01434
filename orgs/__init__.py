"""Users, organizations, memberships, roles, API keys, MQTT credentials, tenancy."""
