"""What a process reads before it serves; identifiers; logs without secrets."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from urllib.parse import urlsplit

import pytest
from django.conf import settings

from cloudsignal import ids
from cloudsignal.config import ConfigError
from cloudsignal.logs import JsonFormatter
from cloudsignal.startup import database, require, role_of


def test_a_database_address_becomes_settings() -> None:
    entry = database("postgresql://app:p%40ss@db.example.com:6543/cs?sslmode=verify-full", pool_size=4)
    assert (entry["NAME"], entry["USER"], entry["PASSWORD"]) == ("cs", "app", "p@ss")
    assert (entry["HOST"], entry["PORT"]) == ("db.example.com", "6543")
    assert entry["OPTIONS"]["sslmode"] == "verify-full"
    assert entry["OPTIONS"]["pool"]["max_size"] == 4
    assert "pool" not in database("dbname=cs")["OPTIONS"]
    assert (role_of("postgresql://other@h/db"), role_of("dbname=cs")) == ("other", "cloudsignal_app")


def test_a_bad_address_is_named_and_its_password_is_not_repeated() -> None:
    with pytest.raises(ConfigError) as refused:
        database("postgresql://app:hunter2@host:not-a-port\\/db?nonsense=1&x")
    assert "hunter2" not in str(refused.value)
    assert "postgresql://role:password@host" in str(refused.value)


def test_a_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLOUDSIGNAL_SECRET_KEY", raising=False)
    with pytest.raises(ConfigError, match="CLOUDSIGNAL_SECRET_KEY"):
        require("CLOUDSIGNAL_SECRET_KEY")


def test_the_web_refuses_to_start_without_its_secrets() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import cloudsignal.wsgi"], env={"PATH": ""}, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "ConfigError: CLOUDSIGNAL_SECRET_KEY is not set" in done.stderr


def test_ids_have_their_forms() -> None:
    org = ids.org_id()
    assert ids.ORG.match(org)
    assert re.fullmatch(r"dep_[a-z2-7]{16}", ids.deployment_id())
    assert re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", ids.local_username())
    token = ids.token_id(org)
    assert len(token) <= 40
    assert ids.org_of_token(token) == org
    for other in ("", "tok_", f"{token}x", token.upper(), "tok_" + "a" * 12, f"{token}\n"):
        assert ids.org_of_token(other) is None
    assert len({ids.org_id() for _ in range(1000)}) == 1000


def test_no_organization_gets_the_id_in_whose_name_edges_probe_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ids.ORG.match(ids.PROBE_ORG), "the broker's own lock asks for this form"
    texts = iter([ids.PROBE_ORG.removeprefix("org_"), "a" * 12])
    monkeypatch.setattr(ids, "random_text", lambda length: next(texts))
    assert ids.org_id() == "org_" + "a" * 12


def test_a_log_line_is_one_json_object_with_named_fields_only() -> None:
    record = logging.LogRecord("x", logging.WARNING, __file__, 1, "line one\nline %s", ("two",), None)
    record.org = "org_a"
    record.password = "hunter2"
    text = JsonFormatter().format(record)
    assert "\n" not in text
    line = json.loads(text)
    assert (line["level"], line["message"], line["org"]) == ("warning", "line one\nline two", "org_a")
    assert "hunter2" not in text


def test_a_traceback_is_part_of_the_line() -> None:
    try:
        int("why")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "failed", (), sys.exc_info())
    line = json.loads(JsonFormatter().format(record))
    assert "ValueError: invalid literal" in line["error"]


def test_the_content_security_policy_has_no_way_around_it() -> None:
    directives = settings.CONTENT_SECURITY_POLICY["DIRECTIVES"]
    words = {word for values in directives.values() for word in values}
    assert not {"'unsafe-inline'", "'unsafe-eval'", "*", "https:", "http:"} & words
    assert directives["default-src"] == ["'none'"]


def test_passwords_of_people_are_hashed_with_argon2() -> None:
    from django.contrib.auth.hashers import make_password

    assert make_password("correct horse").startswith("argon2$argon2id$")


@pytest.mark.parametrize(
    ("url", "secure"),
    [("https://signal.example.com", True), ("http://localhost:8000", False), ("https://[2001:db8::1]", True)],
)
def test_cookies_are_secure_when_the_public_address_is(url: str, secure: bool) -> None:
    code = (
        "from cloudsignal import settings as s; import json;"
        "print(json.dumps([s.SESSION_COOKIE_SECURE, s.CSRF_COOKIE_SECURE, s.SESSION_COOKIE_NAME, s.ALLOWED_HOSTS, "
        "s.SECURE_HSTS_SECONDS, s.DEFAULT_FROM_EMAIL]))"
    )
    environment = {"CLOUDSIGNAL_PUBLIC_URL": url, "CLOUDSIGNAL_SECRET_KEY": "x"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    session, csrf, name, hosts, hsts, sender = json.loads(done.stdout)
    assert (session, csrf, name.startswith("__Host-"), hsts > 0) == (secure, secure, secure, secure)
    assert url.partition("://")[2].removesuffix(":8000") in hosts
    assert name not in {"session", "sessionid"}, "what others on localhost call theirs"
    assert {"localhost", "127.0.0.1", "[::1]"} <= set(hosts)
    assert sender == f"CloudSignal <cloudsignal@{'localhost' if not secure else urlsplit(url).hostname}>"
