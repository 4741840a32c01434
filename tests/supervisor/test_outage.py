"""After an outage of PostgreSQL the connection pool is back at once, not after a pause as long as the outage."""

from __future__ import annotations

import threading

import psycopg
import psycopg_pool

from cloudsignal.startup import database
from tests.support.system import Stack


def test_the_pool_gives_up_soon_so_that_whoever_asks_next_is_served_as_soon_as_there_is_a_server() -> None:
    stack = Stack("--parts", "postgres")
    gave_up = threading.Event()
    try:
        stack.start()
        stack.wait_ready()
        url = stack.database_url()
        options = database(url, pool_size=4)["OPTIONS"]["pool"]
        with psycopg_pool.ConnectionPool(
            url, open=True, check=psycopg_pool.ConnectionPool.check_connection,
            reconnect_failed=lambda _: gave_up.set(), **options,
        ) as pool:  # fmt: skip
            assert answers(pool, timeout=60)
            assert stack.stop() == 0
            assert not answers(pool)
            # Left to itself the pool tries for five minutes, with pauses that double: nobody is served during one.
            assert gave_up.wait(60), "the pool still makes its own pauses longer and longer"
            stack.start()
            stack.wait_ready()
            stack.eventually(lambda: answers(pool), seconds=60, what="an answer of the pool")
    finally:
        stack.remove()


def answers(pool: psycopg_pool.ConnectionPool, timeout: float = 0.3) -> bool:
    try:
        with pool.connection(timeout=timeout) as connection:
            connection.execute("SELECT 1")
    except (psycopg.OperationalError, psycopg_pool.PoolTimeout):
        return False
    return True
