"""What ``cloudsignal doctor`` looks at. Each check finds out one thing and says how to fix it; none changes anything.

- :mod:`~cloudsignal.cli.checks.machine`: Python, packages, programs, limits, disk, clock
- :mod:`~cloudsignal.cli.checks.variables`: environment variables
- :mod:`~cloudsignal.cli.checks.services`: PostgreSQL, Redis or Valkey, certificates
- :mod:`~cloudsignal.cli.checks.running`: what runs now, and ports
"""
