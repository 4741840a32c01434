"""Signing a client in: from its CONNECT to the connection with the broker."""
