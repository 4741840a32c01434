"""The checks of ``cloudsignal doctor``. Each finds one problem and says how to fix it; none changes anything.

- :mod:`~cloudsignal.cli.checks.machine`: Python, packages, programs, limits, disk, clock
- :mod:`~cloudsignal.cli.checks.variables`: environment variables
- :mod:`~cloudsignal.cli.checks.services`: PostgreSQL, Redis or Valkey, certificates
- :mod:`~cloudsignal.cli.checks.running`: what runs now, and ports
"""
