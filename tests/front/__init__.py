"""The front with the real HTTP server, over a small application."""
