"""What happened: event kinds, ingest, search, exports, retention."""
