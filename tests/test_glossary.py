"""The words that people read follow docs/glossary.md: pages, emails, scripts, errors, CLI, API and documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudsignal.errors import quoted
from tests.support.words import all_texts, problems, prose_texts, python_texts, read_glossary, template_texts

PROJECT = Path(__file__).parents[1]
GLOSSARY = """
| term | meaning | where it appears | we do not say |
| --- | --- | --- | --- |
| email | A message | `page.html` | `e-mail` |
| client ID | Of MQTT | `page.html` | `client id` |
"""
PAGE = "<h1>Your email</h1>\n<p>The client ID</p>\n"


def found(tmp_path: Path, glossary: str = GLOSSARY, **files: str) -> list[str]:
    """What the check says about these files beside a page that says both terms."""
    (tmp_path / "glossary.md").write_text(glossary)
    (tmp_path / "page.html").write_text(PAGE)
    readers = {"html": template_texts, "py": python_texts, "md": prose_texts}
    texts = []
    for name, text in files.items():
        kind = name.rsplit("_", 1)[1]
        path = tmp_path / f"planted.{kind}"
        path.write_text(text)
        texts += list(readers[kind](path))
    return problems(read_glossary(tmp_path / "glossary.md"), texts, tmp_path)


def test_nothing_that_people_read_uses_a_word_that_the_glossary_forbids() -> None:
    texts = list(all_texts(PROJECT))
    assert {text.path.suffix for text in texts} == {".html", ".txt", ".js", ".py", ".md"}
    terms = read_glossary(PROJECT / "docs" / "glossary.md")
    assert len(terms) > 50
    assert problems(terms, texts, PROJECT) == []


@pytest.mark.parametrize(
    ("kind", "text", "line"),
    [("html", "<p>\n<b>Your E-mail</b></p>", 2), ("html", '<a aria-label="Send e-mail to {{ name }}"></a>', 1),
     ("html", '{% include "empty.html" with text="No e-mail" %}', 1), ("html", '{% badge "good" "E-mail sent" %}', 1),
     ("html", "<td>Client id</td>", 1), ("py", "label = 'x'\nhelp = 'Your e-mail address'", 2),
     ("py", "raise ValueError(f'no client id {name}')", 1), ("md", "# Title\n\nBy e-mail only.", 3)],
)  # fmt: skip
def test_a_forbidden_word_is_refused_with_its_file_and_line(kind: str, text: str, line: int, tmp_path: Path) -> None:
    (problem,) = found(tmp_path, **{f"planted_{kind}": text})
    assert problem.startswith(f"planted.{kind}:{line}: say ")


@pytest.mark.parametrize(
    ("kind", "text"),
    [("html", '<a href="/e-mail/" class="e-mail">{% url "e-mail" %}{{ e-mail }}Email, client ID</a>'),
     ("py", '"""An e-mail."""\nname = "e-mail"  # e-mail\nsql = "SELECT x AS e-mail FROM y"'),
     ("md", "`e-mail` and [email](e-mail.md)\n\n```\ne-mail\n```"), ("md", "a non-e-mail-like word")],
)  # fmt: skip
def test_names_in_code_are_nobodys_words(kind: str, text: str, tmp_path: Path) -> None:
    assert found(tmp_path, **{f"planted_{kind}": text}) == []


@pytest.mark.parametrize(
    ("row", "why"),
    [("| topic | A name | | `subject` |", "names no place"), ("| topic | A name | `gone.html` | |", "which is no file"),
     ("| topic | A name | `page.html` | |", "does not say topic")],
)  # fmt: skip
def test_a_row_without_a_place_that_says_its_term_fails(row: str, why: str, tmp_path: Path) -> None:
    (problem,) = found(tmp_path, glossary=GLOSSARY + row + "\n")
    assert problem.startswith("docs/glossary.md:6: ")
    assert why in problem


def test_a_row_that_is_not_four_cells_fails_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"glossary.md:6: a row has four cells"):
        found(tmp_path, glossary=GLOSSARY + "| topic | A name |\n")


def test_of_the_changelog_only_what_is_not_released_is_held(tmp_path: Path) -> None:
    path = tmp_path / "CHANGELOG.md"
    path.write_text("## Unreleased\n\n- new\n\n## 0.1.0\n\n- By e-mail.\n")
    assert [text.text for text in prose_texts(path)] == ["## Unreleased", "- new"]


def test_each_page_message_and_mail_of_allauth_has_our_words() -> None:
    """Those of features that are on; the others are never shown (settings: no phone, no codes by mail, no trust)."""
    import allauth

    theirs = Path(allauth.__file__).parent / "templates"
    ours = PROJECT / "templates"
    off = (
        "phone", "login_code", "/request_", "/confirm_", "base_confirm", "email_change.html", "trust",
        "signup_by_passkey",
        "signup_form", "password_reset_code", "snippets/", "email_confirmation_signup", "idp/", "openid/",
        "socialaccount/", "allauth/",
    )  # fmt: skip
    texts = [path for path in theirs.rglob("*") if path.suffix in {".html", ".txt"} and "trans" in path.read_text()]
    names = sorted(str(path.relative_to(theirs)) for path in texts)
    missing = [name for name in names if not any(word in name for word in off) and not (ours / name).is_file()]
    assert len(names) > 60
    assert missing == []


def test_values_in_messages_stand_in_double_quotes_and_steer_no_terminal() -> None:
    assert [quoted(value) for value in ("publish", "it's", "a\x1b[0m\u202eb", 7)] == [
        '"publish"', '"it\'s"', '"a\\x1b[0m\\u202eb"', '"7"',
    ]  # fmt: skip
