"""Shared parts of the API: problems, parsers, pages, idempotency, the schema. Independent of organizations."""
