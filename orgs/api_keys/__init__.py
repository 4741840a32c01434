"""API keys of programs and of CLI sessions."""
