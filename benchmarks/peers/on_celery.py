"""Celery with its pool of threads; it has no async interface, so threads add, too."""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Lock, Timer

from _tally import CONCURRENCY, TASKS, Tally, adding, ready, run
from celery import Celery


def app_at(url: str) -> Celery:
    app = Celery("bench", broker=url, backend=url)
    app.conf.update(
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        broker_pool_limit=TASKS,
        broker_connection_retry_on_startup=True,
        worker_enable_remote_control=False,
        worker_redirect_stdouts=False,
    )
    return app


async def add(url: str, count: int, spacing: float) -> None:
    app, loop = app_at(url), asyncio.get_running_loop()
    threads = ThreadPoolExecutor(TASKS)
    await adding(lambda sent: loop.run_in_executor(threads, app.send_task, "noop", (sent,)), count, spacing)


def work(url: str, count: int) -> None:
    tally, lock, app = Tally(count), Lock(), app_at(url)

    @app.task(name="noop")
    def noop(sent: float) -> None:
        with lock:
            tally.began(sent)

    Timer(3, ready).start()
    app.Worker(
        pool="threads", concurrency=CONCURRENCY, without_gossip=True, without_mingle=True, loglevel="ERROR", quiet=True
    ).start()


if __name__ == "__main__":
    role, url, count, *spacing = sys.argv[1:]
    if role == "add":
        run(add(url, int(count), float(spacing[0])))
    else:
        work(url, int(count))
