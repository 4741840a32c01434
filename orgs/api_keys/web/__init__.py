"""Pages: API keys, and approving the sign-in of a command line."""
