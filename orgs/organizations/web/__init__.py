"""Pages: organizations, settings, and what cannot be undone."""
