"""Pages of the platform itself: start, help, certificate, operators, error pages."""
