"""Pages: API keys, and authorizing the CLI."""
