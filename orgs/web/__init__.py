"""Pages about who: organizations, clients, credentials, settings."""
