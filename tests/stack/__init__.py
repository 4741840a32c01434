"""Fixtures of real parts: the embedded databases, the whole system, a browser."""
