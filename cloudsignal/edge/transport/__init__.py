"""Sockets: listeners, TLS, WebSocket, PROXY protocol, connections to the broker."""
