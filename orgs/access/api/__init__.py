"""The access check of every API operation: authentication, permission, rate limit."""
