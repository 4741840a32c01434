"""API keys of programs and of the command line."""
