"""Pages: credentials, many at once, what expires, how to connect."""
