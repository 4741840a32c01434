"""The algebra of filters, against enumeration of topics."""

from __future__ import annotations

import itertools

import pytest

from acl.policy.engine.topics import (
    ANY,
    MAX_BYTES,
    MAX_LEVELS,
    Levels,
    covered,
    covers,
    filter_problem,
    intersect,
    join,
    matches,
    plain_text,
    representatives,
    split,
    text_problem,
    topic_problem,
    unshared,
)

LEVELS = ("a", "b", "+", "$s")
FILTERS: list[Levels] = [
    *((level,) for level in (*LEVELS, ANY, "#")),
    *((one, other) for one in (*LEVELS, ANY) for other in ("a", "+", "#")),
    *((one, other, last) for one in ("a", "+", "$s", ANY) for other in ("a", "+") for last in ("a", "+", "#")),
    *(("", last) for last in ("", "a", "+", "#")),
    *((one, other, "#") for one in ("", "+") for other in ("", "+") if not one == other == "+"),
]
TOPICS: list[Levels] = [
    topic
    for length in (1, 2, 3, 4)
    for topic in itertools.product(("a", "b", "$s", "x", "$x", ""), repeat=length)
    if topic != ("",) and not any(text.startswith("$") for text in topic[1:])
]


def language(topic_filter: Levels) -> frozenset[Levels]:
    return frozenset(topic for topic in TOPICS if matches(topic_filter, topic))


LANGUAGE = {topic_filter: language(topic_filter) for topic_filter in FILTERS}


@pytest.mark.parametrize("one", FILTERS, ids=join)
def test_intersect_is_the_common_topics(one: Levels) -> None:
    for other in FILTERS:
        both = intersect(one, other)
        common = LANGUAGE[one] & LANGUAGE[other]
        assert common == (language(both) if both else frozenset()), (one, other, both)
        assert (both is None) == (not common), (one, other, both)


@pytest.mark.parametrize("outer", FILTERS, ids=join)
def test_covers_is_containment(outer: Levels) -> None:
    for inner in FILTERS:
        contained = LANGUAGE[inner] <= LANGUAGE[outer]
        assert covers(outer, inner) == contained, (outer, inner)
        assert covered(inner, (outer,)) == contained, (outer, inner)


def test_covered_by_two_is_containment_in_the_union() -> None:
    pairs = list(itertools.combinations(FILTERS, 2))
    for inner in FILTERS:
        for one, other in pairs[::3]:
            contained = LANGUAGE[inner] <= LANGUAGE[one] | LANGUAGE[other]
            assert covered(inner, (one, other)) == contained, (inner, one, other)


def test_covered_by_none() -> None:
    assert not covered(("a",), ())
    assert not covered(("#",), ())


def test_representatives_are_one_topic_per_length() -> None:
    lengths = [len(topic) for topic in representatives(("a", "#"), [("a", "b", "c")])]
    assert lengths == [1, 2, 3, 4]
    assert [len(topic) for topic in representatives(("#",), [])] == [1]
    assert [len(topic) for topic in representatives(("", "#"), [])] == [2]
    assert [len(topic) for topic in representatives(("", "", "#"), [])] == [2, 3]
    assert [len(topic) for topic in representatives(("a", "+"), [("#",)])] == [2]
    assert len(list(representatives((ANY, "a"), []))) == 2


@pytest.mark.parametrize("check", [topic_problem, filter_problem])
def test_limits(check: object) -> None:
    assert callable(check)
    assert check("a" * MAX_BYTES) is None
    assert "longer than 65535 bytes" in check("a" * (MAX_BYTES + 1))
    assert check("é" * (MAX_BYTES // 2)) is None
    assert "longer than 65535 bytes" in check("é" * (MAX_BYTES // 2 + 1))
    assert check("/".join("a" * MAX_LEVELS)) is None
    assert "more than 128 levels" in check("/".join("a" * (MAX_LEVELS + 1)))
    assert "empty" in check("")
    assert "U+0000" in check("a\0")
    assert "well-formed" in check("a\ud800")
    assert check("$SYS/é") is None


def test_the_messages_name_what_is_wrong() -> None:
    assert text_problem("", "topic") == "the topic is empty"
    assert text_problem("a\0", "topic") == "the topic contains the character U+0000"
    assert text_problem("\ud800", "topic filter") == "the topic filter is not well-formed Unicode"
    assert text_problem("a" * 65_536, "topic") == "the topic is longer than 65535 bytes"
    assert text_problem("é" * 32_768, "topic") == "the topic is longer than 65535 bytes"
    assert text_problem("aé" * 21_845, "topic") is None  # just 65,535 bytes
    assert text_problem("/" * 128, "topic") == "the topic has more than 128 levels"
    assert text_problem("/" * 127, "topic") is None
    assert topic_problem("a/+") == "a topic name cannot contain the wildcards + and #"
    assert topic_problem("a/#") == "a topic name cannot contain the wildcards + and #"
    assert topic_problem("") == "the topic is empty"
    assert filter_problem("") == "the topic filter is empty"
    assert filter_problem("a+") == "+ must be a whole level"
    assert filter_problem("a/#/b") == "# must be a whole level and the last one"
    assert filter_problem("#/#") == "# must be a whole level and the last one"
    assert filter_problem("a#") == "# must be a whole level and the last one"
    for fine in ("#", "+", "a/#", "+/+/#", "/", "/#", "+/a/+"):
        assert filter_problem(fine) is None


def test_plain_text_is_cautious() -> None:
    assert plain_text("a/b", ["a", "b"])
    assert plain_text("/".join("a" * 128), ["a"] * 128)
    assert not plain_text("/".join("a" * 129), ["a"] * 129)
    assert plain_text("a" * MAX_BYTES, ["a"])
    assert not plain_text("a" * (MAX_BYTES + 1), ["a"])
    assert not plain_text("", [""])
    assert not plain_text("é", ["é"])
    assert not plain_text("a\0", ["a\0"])


def test_unshared() -> None:
    assert unshared("$share/g/a/b") == ("a/b", None)
    assert unshared("$share/g//") == ("/", None)
    assert unshared("a/b") == ("a/b", None)
    assert unshared("$shared/g/a") == ("$shared/g/a", None)
    assert unshared("$share") == ("$share", None)
    for broken in ("$share/g", "$share//a", "$share/g/", "$share/+/a", "$share/#/a", "$share/"):
        assert unshared(broken) == (broken, "a shared subscription reads $share/GROUP/FILTER")
    again = "$share/g/$share/h/a"
    assert unshared(again) == (again, "a shared subscription cannot be shared again")


def test_split_and_join() -> None:
    assert split("a//b") == ("a", "", "b")
    assert join(("a", ANY, "b")) == "a/+/b"
