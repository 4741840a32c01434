"""Organizations as a whole: create, settings, export, delete."""
