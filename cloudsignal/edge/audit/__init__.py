"""Audit events of the edge: recorded on disk first, then shipped."""
