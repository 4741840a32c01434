"""The gate of every API operation: authentication, permission, rate limit."""
