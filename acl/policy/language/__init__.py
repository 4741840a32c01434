"""The policy language: read, checked and printed."""
