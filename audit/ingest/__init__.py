"""Ingest: audit batches and node reports from the streams into PostgreSQL, at least once, deduplicated.

An entry is acknowledged and deleted only after the commit that holds its events. Killed anywhere, ingest loses nothing:
what was not acknowledged is delivered again, and the key ``(ts, id)`` keeps it from being stored twice.
"""
