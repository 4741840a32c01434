"""Forms about credentials: they parse; the services decide."""
