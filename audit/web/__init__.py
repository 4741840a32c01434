"""Pages of the audit log: the list, one event, and the platform's log."""
