"""Health checks: ``/healthz`` and ``/readyz`` of the web, alive files of worker, beat and ingest."""
