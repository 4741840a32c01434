"""Pages about what happened: the audit list and one event."""
