"""Pages: live sessions, and the progress of a revocation."""
