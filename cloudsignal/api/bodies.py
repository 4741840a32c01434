"""Request bodies against their serializers: wrong kinds, missing and unknown names are refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request


def valid(serializer: type[serializers.Serializer[Any]], request: Request, *, lenient: bool = False) -> dict[str, Any]:
    """The checked body. Raises ``ValidationError``; ``lenient`` ignores names that the serializer does not know."""
    data = request.data
    checked = serializer(data=data)
    checked.is_valid(raise_exception=True)
    if not lenient and isinstance(data, Mapping):
        known = {name for name, field in checked.fields.items() if not field.read_only}
        if unknown := sorted(set(map(str, data)) - known):
            raise ValidationError({unknown[0]: [f"This name is not known here. Known: {', '.join(sorted(known))}."]})
    return dict(checked.validated_data)
