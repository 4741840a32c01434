"""Tenancy: scopes of the database connection, and row-level security."""
