"""Validate request bodies with serializers: wrong types, missing and unknown fields are refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request


def valid(serializer: type[serializers.Serializer[Any]], request: Request, *, lenient: bool = False) -> dict[str, Any]:
    """Validate the body; raises ``ValidationError``. ``lenient`` ignores names that the serializer does not know."""
    data = request.data
    checked = serializer(data=data)
    checked.is_valid(raise_exception=True)
    if isinstance(data, Mapping):
        for name, field in checked.fields.items():
            _check_kind(str(name), field, data.get(name))
    if not lenient and isinstance(data, Mapping):
        known = {name for name, field in checked.fields.items() if not field.read_only}
        if unknown := sorted(set(map(str, data)) - known):
            raise ValidationError({unknown[0]: [f"Unknown field. Known: {', '.join(sorted(known))}."]})
    return dict(checked.validated_data)


KINDS: tuple[tuple[type[serializers.Field[Any, Any, Any, Any]], tuple[type, ...], str], ...] = (
    (serializers.BooleanField, (bool,), "Send true or false."),
    (serializers.IntegerField, (int,), "Send a whole number."),
    (serializers.CharField, (str,), "Send a string."),
)


def _check_kind(name: str, field: Any, value: Any) -> None:
    """Refuse values that the serializer would convert, such as ``"yes"`` for true, ``7`` for an id, ``true`` for 1."""
    if value is None:
        return
    if isinstance(field, serializers.ListField):
        for item in value if isinstance(value, list) else ():
            _check_kind(name, field.child, item)
        return
    for kind, types, message in KINDS:
        if isinstance(field, kind) and type(value) not in types:
            raise ValidationError({name: [message]})
