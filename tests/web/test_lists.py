"""Lists are one component: the table that scrolls, the foot below it, the count that is renewed with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.template import Context, Template
from django.test import Client
from django.urls import reverse

from tests.support.world import person

TEMPLATES = Path(__file__).parents[2] / "templates"
BY_HAND = {
    "allauth/elements/table.html",  # an element of django-allauth, with a slot inside
    "acl/policy.html",  # the simulator's table of rules has a look of its own
}


def drawn(text: str, **values: object) -> str:
    """A piece of a template, as it comes out."""
    return Template("{% load ui %}" + text).render(Context(values))


def test_no_page_draws_a_table_or_a_foot_by_hand() -> None:
    drawing = {
        str(path.relative_to(TEMPLATES))
        for path in TEMPLATES.rglob("*.html")
        if re.search(r'class="(scroll|list-foot)"|<table class="table', path.read_text())
    }
    assert drawing == BY_HAND


def test_a_table_has_a_name_where_the_keyboard_has_to_reach_it() -> None:
    assert drawn("{% table %}<tr></tr>{% endtable %}") == (
        '<div class="scroll"><table class="table"><tr></tr></table></div>'
    )
    assert drawn("{% table label=name %}{{ cell }}{% endtable %}", name='"><b>', cell="<i>") == (
        '<div class="scroll" tabindex="0" role="region" aria-label="&quot;&gt;&lt;b&gt;">'
        '<table class="table">&lt;i&gt;</table></div>'
    )
    assert 'aria-labelledby="stored"' in drawn('{% table labelled_by="stored" %}{% endtable %}')


@pytest.mark.parametrize(
    ("given", "text", "shown"),
    [
        ({}, "", ""),
        ({}, " 3 keys ", "<span>3 keys</span>"),
        ({"newest_url": "/x/?a=1&b=2"}, "", '<a href="/x/?a=1&amp;b=2">Newest</a>'),
        ({"older_url": "?c"}, "", '<a href="?c" rel="next">Older</a>'),
        (
            {"newest_url": "/x/", "newest": "First", "older_url": "?c", "older": "Later"},
            "of 9",
            '<a href="/x/">First</a><a href="?c" rel="next">Later</a><span>of 9</span>',
        ),
    ],
)
def test_a_foot_leads_to_the_other_pages_and_is_not_there_for_nothing(
    given: dict[str, str], text: str, shown: str
) -> None:
    arguments = " ".join(f"{name}={name}" for name in given)
    found = drawn(f"{{% list_foot {arguments} %}}{text}{{% endlist_foot %}}", **given)
    assert found == (f'<div class="list-foot">{shown}</div>' if shown else "")


@pytest.mark.django_db
def test_the_count_above_a_list_is_renewed_with_it() -> None:
    """The table of nodes is asked for every three seconds; the sentence above it said what was so at first."""
    client = Client()
    client.force_login(person(operator=True))
    url = reverse("platform:operator-nodes")
    whole = client.get(url).content.decode()
    part = client.get(url, headers={"HX-Request": "true"}).content.decode()
    count = re.compile(r'<p class="lede" id="nodes-count"( hx-swap-oob="true")?>([^<]+)</p>')
    first, again = count.findall(whole), count.findall(part)
    assert [oob for oob, _ in first] == [""]
    assert [(bool(oob), said) for oob, said in again] == [(True, first[0][1])]
    assert "<h1>" not in part
