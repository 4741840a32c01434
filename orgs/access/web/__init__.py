"""The access check of every page, and reauthentication."""
