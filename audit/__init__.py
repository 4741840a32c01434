"""The audit log: event kinds, ingest, search, exports, retention."""
