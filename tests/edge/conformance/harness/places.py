"""Every case of the suite with the versions and transports it is played in."""

from __future__ import annotations

import importlib
import pkgutil

from tests.edge.conformance import cases
from tests.edge.conformance.harness.stage import CASES

for _module in pkgutil.iter_modules(cases.__path__):
    importlib.import_module(f"{cases.__name__}.{_module.name}")

TRANSPORTS = ("tls", "wss")
PLACES = [
    (version, transport, name) for name, made in CASES.items() for version in made.versions for transport in TRANSPORTS
]
