"""What every API operation shares: problems, parsers, pages, idempotency, the schema. Nothing of organizations."""
