"""What every test can ask for: real databases, the whole running system, a real browser.

Nothing is started before a test needs it. Tests of the pure packages (policy, wire, edge, supervisor, cli) run without
Django altogether.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from tests.support.databases import Databases
from tests.support.schedule import Lanes, mark, place
from tests.support.system import Stack

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

TESTS = Path(__file__).parent

# Where the environment forbids compiled files, every worker and every process that a test starts compiles Django and
# all tests again: ten seconds of a core for each worker, two for each process. They belong into __pycache__.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A busy machine must not fail a test: Hypothesis would otherwise hold every example to 200 ms.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")

WITHOUT_DJANGO = {"policy", "wire", "edge", "supervisor", "cli", "demo", "e2e", "browser", "benchmarks"}
"""Folders whose tests never import Django in the test process."""


def pytest_configure(config: pytest.Config) -> None:
    """Set Django up before collection, unless only folders that do without it were asked for."""
    chosen = {_folder(argument) for argument in config.args}
    only_hands_out = bool(config.getoption("numprocesses", None)) and not hasattr(config, "workerinput")
    if chosen <= WITHOUT_DJANGO or only_hands_out:
        return
    import django

    databases = Databases()
    databases.export()
    config.stash[DATABASES] = databases
    django.setup()
    from django.test import TransactionTestCase

    # A transactional test ends with TRUNCATE, which the application role must not be able to do.
    TransactionTestCase._fixture_teardown = lambda self: databases.empty()  # type: ignore[attr-defined,method-assign]


DATABASES = pytest.StashKey[Databases]()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One browser and one whole system at a time, whatever the number of workers."""
    return Lanes(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.hookimpl(tryfirst=True)
def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what starts processes."""
    mark(item)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with whole systems and browsers, then the files that take long; otherwise leave the order as it is."""
    items.sort(key=place)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the databases and delete their data."""
    databases = config.stash.get(DATABASES, None)
    if databases:
        databases.stop()


def _folder(argument: str) -> str:
    """The folder below tests/ that a command-line argument points into; empty for all of them."""
    path = Path(argument.split("::", maxsplit=1)[0]).resolve()
    return path.relative_to(TESTS).parts[0] if path != TESTS and TESTS in path.parents else ""


# --- databases -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def databases(pytestconfig: pytest.Config) -> Databases:
    """PostgreSQL and Valkey, empty and running."""
    databases = pytestconfig.stash.get(DATABASES, None)
    assert databases is not None, "this folder is listed in WITHOUT_DJANGO, yet its test asks for the databases"
    databases.start()
    return databases


@pytest.fixture(scope="session")
def django_db_setup(django_test_environment: None, django_db_blocker: Any, databases: Databases) -> Iterator[None]:
    """Migrate as the owner; the tests then run as the application role (pytest-django asks for this fixture)."""
    from django.core.management import call_command
    from django.db import connections

    with django_db_blocker.unblock():
        call_command("migrate", database="owner", verbosity=0, interactive=False)
        connections["owner"].close()
    databases.remember()
    yield
    with django_db_blocker.unblock():
        for connection in connections.all():
            connection.close()
            close_pool = getattr(connection, "close_pool", None)
            if close_pool:
                close_pool()


@pytest.fixture(autouse=True)
def _empty_valkey(request: pytest.FixtureRequest) -> None:
    """A test that uses the database starts with an empty Valkey too."""
    wants = {"db", "transactional_db", "django_db_setup"} & set(request.fixturenames)
    if wants or request.node.get_closest_marker("django_db"):
        databases: Databases = request.getfixturevalue("databases")
        databases.redis().flushall()


# --- the whole system ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """CloudSignal as ``cloudsignal up`` runs it, with two edges, shared by all tests of the session."""
    stack = Stack()
    stack.start()
    try:
        stack.wait_ready()
        yield stack
    finally:
        stack.remove()


# --- browser ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium, for one file of tests: its event loop would be in the way of other files' own."""
    from playwright.sync_api import expect, sync_playwright

    from tests.support.browser import PATIENCE, chromium, flags

    # Playwright runs an event loop in this thread; Django would take its own synchronous calls for a mistake.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=flags())
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser profile of its own: no cookies of other tests. Fails the test on script errors and foreign requests."""
    from tests.support.browser import PATIENCE, Watch

    watch = Watch()
    context = browser.new_context(viewport={"width": 1440, "height": 900}, locale="en-GB")
    context.set_default_timeout(2 * PATIENCE)
    context.on("page", watch.on)
    yield context
    context.close()
    assert not watch.problems, "\n".join(watch.problems)


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """A page in a profile of its own."""
    return context.new_page()
