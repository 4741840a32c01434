"""Shared parts of all pages: confirmations, filters, forms, formatting. No pages."""
