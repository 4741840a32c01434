"""Words, topics and differences as the pages show them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acl.web import textdiff
from acl.web.textdiff import diff
from cloudsignal.templatetags.ui import topic
from cloudsignal.web.formatting import actor, ago, browser, duration, exact, plural, size, topic_parts

NOW = datetime(2026, 11, 22, 18, 4, 5, 123_456, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "now"), (4, "now"), (42, "42 s ago"), (60, "1 min ago"), (3599, "59 min ago"), (7300, "2 h ago"),
     (200_000, "2 d ago"), (-30, "in 30 s"), (-3599, "in 1 h"), (-3540, "in 59 min"), (-86_400, "in 1 d")],
)  # fmt: skip
def test_times_are_told_as_people_say_them(seconds: int, words: str) -> None:
    assert ago(NOW - timedelta(seconds=seconds), NOW) == words


def test_an_exact_time_is_utc_to_the_millisecond() -> None:
    assert exact(NOW) == "2026-11-22 18:04:05.123 UTC"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.0821, "82 ms"), (1.2, "1.2 s"), (59.99, "59.99 s"), (185, "3 min 5 s"), (3600, "1 h")]
)
def test_lengths_of_time(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"), [(812, "812 B"), (3482, "3.4 KB"), (262_144, "256 KB"), (2**31, "2048 MB")]
)
def test_sizes(count: int, words: str) -> None:
    assert size(count) == words


def test_browsers() -> None:
    chrome = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36"
    assert browser(chrome) == "Chrome on Linux"
    assert browser(chrome + " Edg/150.0") == "Edge on Linux"
    assert browser("Mozilla/5.0 (Macintosh; Intel Mac OS X 14.1; rv:130.0) Firefox/130.0") == "Firefox on macOS"
    assert browser("curl/8.5") == "curl/8.5"
    assert browser("x" * 500) == "x" * 60
    assert browser("") == "unknown"


def test_plurals_and_actors() -> None:
    assert [plural(1, "session"), plural(1204, "session"), plural(2, "policy", "policies")] == [
        "1 session", "1,204 sessions", "2 policies",
    ]  # fmt: skip
    assert [actor("user:ada@example.com"), actor("key:sk_...x7m4"), actor("system")] == [
        "ada@example.com", "key sk_...x7m4", "system",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["a/+/c/#", "#", "agents/{username}/card", "{a}-{b}/x+", "//", "a{b", "", "é/\n/+"])
def test_a_topic_in_pieces_is_the_topic(text: str) -> None:
    assert "".join(part for _, part in topic_parts(text)) == text


def test_wildcards_are_whole_levels_only() -> None:
    assert [part for kind, part in topic_parts("+/a+/#/b#") if kind == "wild"] == ["+", "#"]


def test_a_topic_cannot_smuggle_markup() -> None:
    assert "<script>" not in topic("a/<script>alert(1)</script>/{<b>}")


def test_a_difference_shows_changes_with_three_lines_around_them() -> None:
    old = [f"line {number}" for number in range(1, 41)]
    new = [*old[:19], "line twenty", *old[20:]]
    found = diff("\n".join(old), "\n".join(new))
    assert (found.added, found.removed) == (1, 1)
    assert [(row.op, row.text) for row in found.rows] == [
        ("gap", "16 unchanged lines"), ("same", "line 17"), ("same", "line 18"), ("same", "line 19"),
        ("del", "line 20"), ("add", "line twenty"), ("same", "line 21"), ("same", "line 22"), ("same", "line 23"),
        ("gap", "17 unchanged lines"),
    ]  # fmt: skip


@pytest.mark.parametrize(("old", "new"), [("", "a\nb"), ("a\nb", ""), ("a\nb\nc", "b\nc\nd"), ("x\n" * 6, "x\n" * 3)])
def test_a_difference_leads_from_one_text_to_the_other(old: str, new: str) -> None:
    rows = diff(old, new).rows
    assert [row.text for row in rows if row.op in {"same", "del"}] == old.splitlines()
    assert [row.text for row in rows if row.op in {"same", "add"}] == new.splitlines()


def test_equal_texts_have_no_difference_and_large_ones_do_not_take_long() -> None:
    assert diff("a\nb", "a\nb").rows == []
    found = diff("\n".join(map(str, range(20_000))), "\n".join(map(str, range(20_000, 40_000))))
    assert (found.added, found.removed) == (20_000, 20_000)


def rules(*names: str) -> str:
    return "\n".join(f"- id: {name}\n  action: pub\n  topic: a/b" for name in names)


def test_a_difference_of_large_texts_goes_by_the_lines_that_each_has_once() -> None:
    names = [f"rule-{number}" for number in range(1_000)]
    found = diff(rules(*names), rules("first", *names[:500], "middle", *names[501:], "last"))
    assert (found.added, found.removed) == (7, 1)
    assert [row.text for row in found.rows if row.op == "del"] == ["- id: rule-500"]
    assert [row.text for row in found.rows if "id:" in row.text and row.op == "add"] == [
        "- id: first", "- id: middle", "- id: last",
    ]  # fmt: skip


def test_large_texts_without_such_lines_are_not_compared_line_by_line() -> None:
    found = diff("\n".join("ab" * 1_000), "\n".join("ba" * 1_000))
    assert (found.added, found.removed) == (2_000, 2_000)


@given(*[st.lists(st.sampled_from("abcdefgh"), max_size=40)] * 2, st.integers(0, 60))
def test_whatever_is_compared_leads_from_one_text_to_the_other(old: list[str], new: list[str], costly: int) -> None:
    with mock.patch.object(textdiff, "COSTLY", costly), mock.patch.object(textdiff, "CONTEXT", 1_000):
        rows = diff("\n".join(old), "\n".join(new)).rows
    if old != new:
        assert [row.text for row in rows if row.op in {"same", "del"}] == old
        assert [row.text for row in rows if row.op in {"same", "add"}] == new
        assert [row.old for row in rows if row.old] == [*range(1, len(old) + 1)]
        assert [row.new for row in rows if row.new] == [*range(1, len(new) + 1)]


def test_what_cannot_be_seen_in_a_topic_is_named() -> None:
    shown = topic("a/\u202egnp.exe\u202c/{user\x07name}")
    assert re.findall(r'class="unseen">([^<]+)<', shown) == ["U+202E", "U+202C", "U+0007"]
    assert not set(shown) & set("\u202e\u202c\x07")
