"""The OpenAPI document against the application (schemathesis, in process): no 5xx, no answer it does not promise."""

from __future__ import annotations

from contextlib import suppress

import pytest
import schemathesis
from django.core.wsgi import get_wsgi_application
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from pytest_django.fixtures import Settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from cloudsignal.api.schema import document
from orgs.permissions import Role
from tests.support.calling import World
from tests.support.operations import fill

EXAMPLES = {GenerationMode.POSITIVE: 4, GenerationMode.NEGATIVE: 2}
"""Requests for each operation: as the document wants them, and as it does not."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.mark.timeout(240)
def test_no_answer_is_an_error_of_ours_or_a_surprise(
    acme: World, settings_: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    settings_.RATE_LIMITS = dict.fromkeys(settings_.RATE_LIMITS, "1000000/1")
    ids = fill(acme)
    key, person = acme.key(), acme.person(Role.ADMIN)
    schema = schemathesis.openapi.from_wsgi("/v2/schema/", get_wsgi_application())
    session = person.client.cookies[settings_.SESSION_COOKIE_NAME].value
    asked = 0
    cases = [(found.ok(), mode, count) for found in schema.get_all_operations() for mode, count in EXAMPLES.items()]
    for operation, mode, count in cases:

        @settings(
            max_examples=count, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=mode))
        def conforms(case: Case) -> None:
            nonlocal asked
            asked += 1
            headers = {"Authorization": f"Bearer {key}"}
            if asked % 3 == 0:  # every third by the session of a person, with real ids
                headers = {"Cookie": f"{settings_.SESSION_COOKIE_NAME}={session}"}
                case.query = {**(case.query or {}), "organization_id": acme.id}
            if asked % 2 == 0:
                known = {name: ids[name] for name in case.path_parameters or {} if name in ids}
                case.path_parameters = {**(case.path_parameters or {}), **known}
            response = case.call(headers=headers)
            case.validate_response(response, checks=CHECKS)

        with suppress(Unsatisfiable):  # an operation without parameters cannot be asked wrongly
            conforms()
    assert asked > len(cases) * 2
    with capsys.disabled():
        print(f"\nschemathesis: {asked} requests, every answer as documented")


@pytest.fixture
def settings_(settings: Settings) -> Settings:
    """pytest-django's settings, under a name that hypothesis does not use."""
    return settings


def test_every_operation_is_described_and_every_refusal_documented() -> None:
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            assert operation.get("description"), f"{method} {path}"
            assert operation["operationId"], f"{method} {path}"
            assert {"400", "401", "404", "429"} <= operation["responses"].keys(), f"{method} {path}"
            assert any(status.startswith("2") for status in operation["responses"]), f"{method} {path}"
            answers = {status: each for status, each in operation["responses"].items() if status in {"200", "201"}}
            assert all("content" in each for each in answers.values()), f"{method} {path} says nothing of its answer"
