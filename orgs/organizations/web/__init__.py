"""Pages: organizations, their settings, and dangerous actions."""
