"""API: identity providers and the token service."""
