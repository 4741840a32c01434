"""The keys of VerneMQ that the generated configuration may use, each with the form of its value.

Read in the schemas of VerneMQ's public repository: ``apps/vmq_server/priv/vmq_server.schema`` (at 899a006, and what is
said of it in 2.1.2), ``apps/vmq_diversity/priv/vmq_diversity.schema`` and ``files/vmq.schema``; ``erlang.*`` in the
schema of cuttlefish, which VerneMQ includes. ``NAME`` stands for a name of one's own. A key that is missing there
keeps a node from starting.
"""

from __future__ import annotations

import re

FLAG = r"on|off"
NUMBER = r"\d+"
FILE = r"/\S+"
ADDRESS = r"(?:[\w.]+|\[[0-9a-fA-F:]+\]):\d{1,5}"
SPAN = r"\d+[hdwmy]|never"
"""Hours, days, weeks, months of four weeks, years of twelve of these."""

KEYS = {
    "allow_anonymous": FLAG,
    "allow_register_during_netsplit": FLAG,
    "allow_publish_during_netsplit": FLAG,
    "allow_subscribe_during_netsplit": FLAG,
    "allow_unsubscribe_during_netsplit": FLAG,
    "distributed_cookie": r"\w+",
    "erlang.distribution.net_ticktime": NUMBER,
    "erlang.distribution.port_range.maximum": NUMBER,
    "erlang.distribution.port_range.minimum": NUMBER,
    "http_modules": r"\[\w+(?:, \w+)*\]",
    "listener.http.NAME": ADDRESS,
    "listener.ssl.NAME": ADDRESS,
    "listener.ssl.NAME.allowed_protocol_versions": r"[345](?:,[345])*",
    "listener.ssl.NAME.cafile": FILE,
    "listener.ssl.NAME.certfile": FILE,
    "listener.ssl.NAME.keyfile": FILE,
    "listener.ssl.NAME.require_certificate": FLAG,
    "listener.ssl.NAME.tls_version": r"tlsv1\.[23](?:,tlsv1\.[23])*",
    "listener.vmq.NAME": ADDRESS,
    "max_client_id_size": NUMBER,
    "max_inflight_messages": NUMBER,
    "max_message_size": NUMBER,
    "max_offline_messages": NUMBER,
    "max_online_messages": NUMBER,
    "nodename": r"\w+@[\w.:-]+",
    "outgoing_clustering_buffer_size": NUMBER,
    "persistent_client_expiration": SPAN,
    "plugins.NAME": FLAG,
    "shared_subscription_policy": r"prefer_local|random|local_only",
    "topic_max_depth": NUMBER,
    "vmq_diversity.NAME.file": FILE,
}
"""Patterns of whole values, by key."""


def problems(text: str) -> list[str]:
    """Mistakes that VerneMQ would find in a configuration: other lines, unknown keys, wrong values, repetitions."""
    found, seen = [], set()
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        match = re.fullmatch(r"(\S+) = (\S.*)", line)
        if match is None:
            found.append(f"not KEY = VALUE: {line!r}")
            continue
        key, value = match.groups()
        pattern = next((form for known, form in KEYS.items() if _is(key, known)), None)
        if key in seen:
            found.append(f"{key} stands twice")
        elif pattern is None:
            found.append(f"{key} is unknown")
        elif not re.fullmatch(pattern, value):
            found.append(f"{key} cannot be {value!r}")
        seen.add(key)
    return found


def _is(key: str, known: str) -> bool:
    return re.fullmatch(re.escape(known).replace("NAME", r"\w+"), key) is not None
