"""Detect parts of a rule that can never match: the syntax of other brokers, and typing mistakes.

Usernames of an organization are of a-z, 0-9, ``-`` and ``_`` and are checked without ``@org``; clients name topics
without the organization's mountpoint; placeholders and wildcards of other brokers are ordinary text here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from acl.policy.engine.model import Rule
from acl.policy.engine.topics import covers, split

MAX_TOPICS_COMPARED = 64
"""Topics of one rule up to which each is held against each."""
NAME_MAX = 63
_NAME = re.compile(r"[a-z0-9_*-]*")
_FOREIGN = {
    "%u": "{username}",
    "%c": "{client_id}",
    "${username}": "{username}",
    "${clientid}": "{client_id}",
    "${client_id}": "{client_id}",
}
_ORG = re.compile(r"(org_[a-z2-7]{12}|\{org\})(/|$)")


def in_names(rule: Rule) -> Iterator[str]:
    """Username globs that no username of an organization can match."""
    for glob in rule.who.username:
        if "@" in glob:
            yield f"username {glob} never matches: usernames are matched without the @ and the organization; remove it"
        elif not _NAME.fullmatch(glob):
            yield f"username {glob} never matches: usernames are of a-z, 0-9, - and _"
        elif glob[:1] in ("-", "_") or not glob or len(glob.replace("*", "")) > NAME_MAX:
            shown = glob or "(empty)"
            yield f"username {shown} never matches: a username begins with a letter or digit and has up to {NAME_MAX}"


def in_topic(topic: str, most: int) -> Iterator[str]:
    """Suspicious parts of one topic of a rule; of more than ``most`` levels it matches nothing."""
    for foreign, ours in _FOREIGN.items():
        if foreign in topic:
            yield f"{foreign} in {topic} is no variable here; write {ours}"
    levels = topic.split("/")
    if len(levels) - (levels[-1] == "#") > most:
        yield f"{topic} never matches: the edge takes topics of up to {most} levels"
    if any("*" in level for level in levels):
        yield f"* in {topic} is an ordinary character; + is one level, and # at the end all below"
    if _ORG.match(topic):
        yield f"{topic} begins with the organization: clients name topics without their mountpoint"
    if len(levels) > 1 and not levels[0]:
        yield f"{topic} begins with an empty level, so it does not match {topic[1:]}"
    if len(levels) > 1 and not levels[-1]:
        yield f"{topic} ends with an empty level, so it does not match {topic[:-1]}"


def redundant(opaque: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Topics of a rule that another topic of the same rule includes, each with that topic."""
    if len(opaque) > MAX_TOPICS_COMPARED:
        return
    for topic, text in opaque.items():
        for other, wider in opaque.items():
            if other != topic and covers(split(wider), split(text)):
                yield topic, other
                break
