"""Pages about what happened: the audit list, one event, and the platform's log."""
