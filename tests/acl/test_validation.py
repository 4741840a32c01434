"""The answer of ``POST /v2/policy/validate``: made beside the web, in the shape that the API declares."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
from django.utils import timezone
from rest_framework.renderers import JSONRenderer

from acl.api.shapes import DiffSerializer, OptionalTextSerializer, TextSerializer, ValidationSerializer
from acl.examining import examine, validation
from acl.policy import MAX_DOCUMENT_BYTES

TESTS = "tests:\n" + "".join(
    f"  - {{name: 'Ł\u2028{wanted}', as: d, do: pub, topic: a/b, expect: {wanted}}}\n" for wanted in ("allow", "deny")
)
TEXTS = {
    "warnings and tests": f"version: '3'\nrules:\n  - {{topic: 'a/#', action: pub}}\n{TESTS}",
    "errors": "version: '3'\nrules:\n  - {topik: a}\n  - {topic: 'a/#/b'}\n",
    "no document": "rules: [",
    "nothing": "",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_it_has_the_shape_that_the_api_declares(text: str) -> None:
    now = timezone.now()
    declared = ValidationSerializer(examine(text, org="org_a", now=now)).data
    assert json.loads(validation(text, org="org_a", now=now)) == json.loads(JSONRenderer().render(declared))


@pytest.mark.parametrize(
    ("serializer", "names"),
    [(TextSerializer, ["text"]), (OptionalTextSerializer, ["text"]), (DiffSerializer, ["old_text", "new_text"])],
)
def test_a_document_is_not_looked_at_character_by_character(serializer: type, names: list[str]) -> None:
    text = "x" * MAX_DOCUMENT_BYTES

    def checked() -> None:
        assert serializer(data=dict.fromkeys(names, text)).is_valid()

    def looked_at() -> None:
        assert not any(character == "y" for character in text)

    assert _cost(checked) < _cost(looked_at) / 4


def _cost(function: Callable[[], None]) -> float:
    """CPU seconds of this thread, of the best of three."""
    found = []
    for _ in range(3):
        before = time.thread_time()
        function()
        found.append(time.thread_time() - before)
    return min(found)
