"""The outbox: in the change's transaction, at least once, in order, patient when the broker is unavailable."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cloudsignal import outbox
from cloudsignal.models import OutboxRow
from cloudsignal.redis import FAST_SECONDS, client
from cloudsignal.tenancy.scopes import org_scope, platform_scope
from tests.support.world import organization

pytestmark = pytest.mark.django_db(transaction=True)

ORG = "org_aaaaaaaaaaaa"


class Broker:
    """Stands for Celery's producer, which is outside this process."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, str]]] = []
        self.away = False

    def send(self, task: str, payload: dict[str, str]) -> None:
        if self.away:
            raise OSError("the broker is unavailable")
        self.sent.append((task, payload))


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    broker = Broker()
    monkeypatch.setattr(outbox, "_send", broker.send)
    return broker


def rows() -> list[OutboxRow]:
    with platform_scope():
        return list(OutboxRow.objects.order_by("id"))


def make_due() -> None:
    with platform_scope():
        OutboxRow.objects.update(available_at=timezone.now() - timedelta(seconds=1))


def ask(key: str = "k", **payload: str) -> None:
    with org_scope(ORG):
        outbox.enqueue("tests.task", org=ORG, key=key, payload=payload)


def test_it_is_sent_on_commit_and_then_gone(broker: Broker) -> None:
    with org_scope(ORG):
        outbox.enqueue("tests.task", org=ORG, key="k", payload={"org": ORG})
        assert broker.sent == []
    assert broker.sent == [("tests.task", {"org": ORG})]
    assert rows() == []
    assert outbox.depth() == outbox.Depth(0, 0.0)


def test_a_change_that_is_rolled_back_sends_nothing(broker: Broker) -> None:
    def change() -> None:
        with org_scope(ORG):
            outbox.enqueue("tests.task", org=ORG, key="k")
            assert OutboxRow.objects.count() == 1 / 0

    with pytest.raises(ZeroDivisionError):
        change()
    assert (broker.sent, rows()) == ([], [])


def test_outside_a_transaction_it_is_refused(broker: Broker) -> None:
    with pytest.raises(RuntimeError, match="transaction"):
        outbox.enqueue("tests.task", org=ORG, key="k")


def test_when_the_broker_is_away_the_commit_stands_and_the_row_waits(broker: Broker) -> None:
    broker.away, before = True, timezone.now()
    ask(n="1")
    (row,) = rows()
    assert (row.attempts, row.last_error) == (1, "OSError: the broker is unavailable")
    assert before <= row.available_at - timedelta(seconds=1) <= timezone.now()
    depth = outbox.depth()
    assert depth.rows == 1
    assert 0 < depth.oldest <= (timezone.now() - before).total_seconds()
    broker.away = False
    with platform_scope():
        OutboxRow.objects.update(available_at=timezone.now() + timedelta(minutes=5))
    assert outbox.drain() == 0  # not due yet
    make_due()
    assert outbox.drain() == 1
    assert (broker.sent, rows()) == ([("tests.task", {"n": "1"})], [])


def test_it_backs_off_up_to_a_minute(broker: Broker) -> None:
    broker.away = True
    ask()
    for wait in (2, 4, 8, 16, 32, 60, 60):
        make_due()
        before = timezone.now()
        outbox.drain()
        assert before <= rows()[0].available_at - timedelta(seconds=wait) <= timezone.now()
    with platform_scope():
        OutboxRow.objects.update(attempts=100_000)  # as after a week without memory for it
    make_due()
    outbox.drain()
    assert rows()[0].available_at > timezone.now() + timedelta(seconds=30)


def test_a_row_that_has_waited_for_days_is_still_settled(broker: Broker) -> None:
    broker.away = True
    ask()
    with platform_scope():
        OutboxRow.objects.update(attempts=100_000)
    make_due()
    outbox.drain()
    assert timezone.now() + timedelta(seconds=50) < rows()[0].available_at


def test_rows_of_one_key_are_sent_once_with_the_newest_payload_and_keys_in_order(broker: Broker) -> None:
    broker.away = True
    ask("a", n="1")
    ask("b", n="2")
    ask("a", n="3")
    broker.away = False
    make_due()
    assert outbox.drain() == 3
    assert broker.sent == [("tests.task", {"n": "3"}), ("tests.task", {"n": "2"})]


def test_two_that_drain_at_the_same_time_share_the_rows(broker: Broker) -> None:
    broker.away = True
    for n in range(40):
        ask(f"k{n}", n=str(n))
    broker.away = False
    make_due()
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        outbox.drain()
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(payload["n"]) for _, payload in broker.sent) == list(range(40))
    assert rows() == []


def test_a_sender_that_dies_leaves_a_lease_that_runs_out(broker: Broker) -> None:
    with org_scope(ORG):
        OutboxRow.objects.create(org_id=ORG, task="tests.task", key="k")
    leased = outbox._lease()  # and then the process is killed
    assert len(leased) == 1
    assert outbox.drain() == 0
    with platform_scope():
        OutboxRow.objects.update(available_at=timezone.now() - timedelta(milliseconds=1))
    assert outbox.drain() == 1


def test_a_row_is_seen_by_its_organization_only(broker: Broker) -> None:
    broker.away = True
    ask()
    with org_scope("org_bbbbbbbbbbbb"):
        assert OutboxRow.objects.count() == 0
    with org_scope(ORG):
        assert OutboxRow.objects.count() == 1


def test_immediate_work_is_done_when_the_answer_goes_out(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    from orgs.credentials.issuing import issue_credential

    pushed = []
    monkeypatch.setattr("orgs.credentials.push.push_credential", lambda _redis, org, name: pushed.append((org, name)))
    access = organization()
    broker.sent.clear()
    issued = issue_credential(access)
    assert pushed == [(access.org_id, issued.local)]
    assert (broker.sent, rows()) == ([], [])


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that accepts connections and never answers: Redis when its machine hangs."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("how", ["closed", "silent"])
def test_a_broker_that_is_away_or_hangs_does_not_hold_up_the_request(
    monkeypatch: pytest.MonkeyPatch, silent: int, how: str
) -> None:
    port = 1 if how == "closed" else silent
    slow = Redis.from_url(
        f"redis://127.0.0.1:{port}/0",
        socket_connect_timeout=FAST_SECONDS,
        socket_timeout=FAST_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
    monkeypatch.setattr(outbox, "fast_client", lambda: slow)
    ask()
    assert [row.attempts for row in rows()] == [0]


def test_the_sweep_really_hands_tasks_to_celery() -> None:
    with org_scope(ORG):
        OutboxRow.objects.create(org_id=ORG, task="acl.tasks.push_bundle", key=ORG, payload={"org": ORG})
    assert outbox.drain() == 1
    (message,) = client().lrange("cs1:celery:cloudsignal", 0, -1)  # type: ignore[misc,union-attr]
    assert json.loads(message)["headers"]["task"] == "acl.tasks.push_bundle"
