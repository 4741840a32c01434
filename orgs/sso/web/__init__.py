"""Pages of SSO: sign-in, connections, and the middleware of SSO sessions."""
