"""Pages: connected clients, and what a revocation closes."""
