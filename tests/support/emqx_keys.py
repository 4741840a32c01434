"""The keys of EMQX that the generated configuration may use, each with the form of its value.

Read in EMQX's public repository and documentation (5.8): ``rel/config/examples`` for listeners, ``mqtt`` and retainer,
``cinfo-authn.conf`` and "Client-Info Authentication" for ``authentication``, "Use ACL File" for ``authorization`` and
the grammar of ``acl.conf``. EMQX refuses to start with a key that it does not know.
"""

from __future__ import annotations

import re

FLAG = r"true|false"
NUMBER = r"\d+"
FILE = r'"/[^"]+"'
TEXT = r'"[^"]*"'
ACTION = r"allow|deny"

KEYS = {
    "authentication.checks.is_match": r'"[^"]+"|\["[^"]+"(?:, "[^"]+")*\]',
    "authentication.checks.result": r"allow|deny|ignore",
    "authentication.mechanism": r"cinfo",
    "authorization.deny_action": r"ignore|disconnect",
    "authorization.no_match": ACTION,
    "authorization.sources.enable": FLAG,
    "authorization.sources.path": FILE,
    "authorization.sources.type": r"file",
    "listeners.NAME.NAME.bind": r'"(?:[\w.]+|\[[0-9a-fA-F:]+\]):\d{1,5}"',
    "listeners.NAME.NAME.enable": FLAG,
    "listeners.NAME.NAME.enable_authn": FLAG,
    "listeners.NAME.NAME.mountpoint": TEXT,
    "listeners.NAME.NAME.ssl_options.cacertfile": FILE,
    "listeners.NAME.NAME.ssl_options.certfile": FILE,
    "listeners.NAME.NAME.ssl_options.fail_if_no_peer_cert": FLAG,
    "listeners.NAME.NAME.ssl_options.keyfile": FILE,
    "listeners.NAME.NAME.ssl_options.verify": r"verify_peer|verify_none",
    "listeners.NAME.NAME.ssl_options.versions": r'\["tlsv1\.[23]"(?:, "tlsv1\.[23]")*\]',
    "mqtt.max_clientid_len": NUMBER,
    "mqtt.max_inflight": NUMBER,
    "mqtt.max_mqueue_len": NUMBER,
    "mqtt.max_packet_size": NUMBER,
    "mqtt.max_topic_levels": NUMBER,
    "mqtt.mqueue_store_qos0": FLAG,
    "mqtt.peer_cert_as_clientid": r"disabled",
    "mqtt.peer_cert_as_username": r"disabled",
    "mqtt.session_expiry_interval": r"\d+[smhd]",
    "mqtt.shared_subscription_strategy": r"random|round_robin|sticky|local",
    "mqtt.use_username_as_clientid": FLAG,
    "retainer.max_payload_size": NUMBER,
}
"""Patterns of whole values, by path; entries of a list share one path."""

RULE = re.compile(r'\{(?:allow|deny), (?:all|\{username, \{re, "[^"]+"\}\}, all, \["[^"]+"\])\}\.')


def values(text: str) -> list[tuple[str, str]]:
    """Every path of a HOCON text with its value, in the part of HOCON that the generated text uses."""
    found: list[tuple[str, str]] = []
    path: list[str] = []
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if inline := re.fullmatch(r"\{ (.+) \},?", line):
            pairs = re.findall(r'(\w+) = ("[^"]*"|\w+)', inline[1])
            found += [(_joined([*path, key]), value) for key, value in pairs]
        elif block := re.fullmatch(r"(?:([\w.]+) (?:= )?)?([{\[])", line):
            path.append(block[1] or "")
        elif re.fullmatch(r"[}\]],?", line):
            path.pop()
        else:
            match = re.fullmatch(r"([\w.]+) = (.+)", line)
            assert match, f"not HOCON: {line!r}"
            found.append((_joined([*path, match[1]]), match[2]))
    assert path == [], "a bracket is not closed"
    return found


def _joined(path: list[str]) -> str:
    return ".".join(part for part in path if part)


def problems(text: str) -> list[str]:
    """Mistakes that EMQX would find in a configuration: unknown keys and wrong values."""
    found = []
    for path, value in values(text):
        pattern = next((form for known, form in KEYS.items() if _is(path, known)), None)
        if pattern is None:
            found.append(f"{path} is unknown")
        elif not re.fullmatch(pattern, value):
            found.append(f"{path} cannot be {value}")
    return found


def _is(path: str, known: str) -> bool:
    return re.fullmatch(re.escape(known).replace("NAME", r"\w+"), path) is not None
