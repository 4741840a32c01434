"""After an outage of PostgreSQL the connection pool is back at once, not after a pause as long as the outage."""

from __future__ import annotations

import contextlib
import time

import psycopg
import psycopg_pool

from cloudsignal.startup import database
from tests.stack.system import Stack

OUTAGE = 10.0


def test_the_pool_is_back_soon_after_an_outage() -> None:
    stack = Stack("--parts", "postgres")
    try:
        stack.start()
        stack.wait_ready()
        url = stack.database_url()
        options = database(url, pool_size=4)["OPTIONS"]["pool"]
        with psycopg_pool.ConnectionPool(
            url, open=True, check=psycopg_pool.ConnectionPool.check_connection, **options
        ) as pool:
            answers(pool)
            assert stack.stop() == 0
            end = time.monotonic() + OUTAGE
            while time.monotonic() < end:
                with contextlib.suppress(psycopg.OperationalError, psycopg_pool.PoolTimeout):
                    answers(pool, timeout=0.5)
                time.sleep(0.1)
            stack.start()
            stack.wait_ready()
            back = time.monotonic()
            while not tries(pool):
                assert time.monotonic() - back < 3.5, "the pool still waits although PostgreSQL answers"
    finally:
        stack.remove()


def answers(pool: psycopg_pool.ConnectionPool, timeout: float = 10.0) -> None:
    with pool.connection(timeout=timeout) as connection:
        connection.execute("SELECT 1")


def tries(pool: psycopg_pool.ConnectionPool) -> bool:
    try:
        answers(pool, timeout=0.3)
    except (psycopg.OperationalError, psycopg_pool.PoolTimeout):
        return False
    return True
