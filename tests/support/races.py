"""Two at once, so that the second is known to wait for the first."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from time import sleep
from typing import TypeVar

from django.db import connection

T = TypeVar("T")


def meanwhile(call: Callable[[], T], pool: ThreadPoolExecutor) -> Future[T]:
    """Begin ``call`` in another thread and return once it waits for a lock that this one holds."""

    def run() -> T:
        try:
            return call()
        finally:
            connection.close()

    begun = pool.submit(run)
    while not begun.done():
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_locks WHERE NOT granted")
            if cursor.fetchone():
                break
        sleep(0.01)
    return begun
