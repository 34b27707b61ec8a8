"""What mypy must know of jobs; checked by ``scripts/check``, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import assert_type

import msgspec

from noobly.core.remote import Remote, remote
from noobly.core.scope import Scope
from noobly.working import (
    Job,
    JobContext,
    JobHandle,
    Jobs,
    JobSpec,
    State,
    Task,
    Tasks,
    ThreadContext,
    Ticket,
    open_jobs,
)
from noobly.working.records import Value

tasks = Tasks()


class Photo(msgspec.Struct):
    path: str


@tasks.task(retries=3)
async def resize(photo: Photo, job: JobContext) -> Photo:
    await job.progress(50)
    return photo


@tasks.task(rate_limit="4/s")
def count(path: str, job: ThreadContext) -> int:
    job.log(path)
    return 1


def calls_itself() -> None:
    assert_type(count("a", ThreadContext.__new__(ThreadContext)), int)
    count(1)  # type: ignore[call-arg, arg-type]


async def adds(jobs: Jobs) -> None:
    handle = await jobs.enqueue(resize, Photo("a"), delay=5)
    assert_type(handle, JobHandle[Photo])
    assert_type(await handle.result(10), Photo)
    assert_type(await (await jobs.enqueue(count, "a")).result(), int)
    assert_type(await (await jobs.enqueue("resize", {"path": "a"})).result(), Value)
    assert_type(await handle.status(), State)
    assert_type(await handle.children(), list[Job])
    await jobs.enqueue(count, "a", dealy=5)  # type: ignore[call-overload]


async def adds_many(jobs: Jobs) -> None:
    assert_type(jobs.spec(resize, Photo("a")), JobSpec)
    assert_type(await jobs.add([jobs.spec(count, "a")]), list[Ticket])
    assert_type(await jobs.batch([jobs.spec(resize, Photo("a"))], then=count), JobHandle[Value])
    assert_type(jobs.handle("id"), JobHandle[Value])


async def decorates(jobs: Jobs) -> None:
    @jobs.task()
    async def greet(name: str) -> str:
        return name

    @jobs.task(execution="process")
    def square(number: int) -> int:
        return number * number

    assert_type(await greet("a"), str)
    assert_type(square(2), int)
    assert_type(await jobs.enqueue(greet, "a"), JobHandle[str])
    assert_type(await jobs.enqueue(square, 2), JobHandle[int])


def has_lifespans(jobs: Jobs) -> None:
    @tasks.lifespan
    async def pool() -> AsyncIterator[None]:
        yield

    @jobs.lifespan
    @asynccontextmanager
    async def client() -> AsyncIterator[None]:
        async with managed():
            yield

    @asynccontextmanager
    async def managed() -> AsyncIterator[None]:
        yield

    @tasks.lifespan  # type: ignore[type-var]
    async def coroutine() -> None: ...

    @tasks.lifespan  # type: ignore[type-var]
    async def valued() -> AsyncIterator[int]:
        yield 1

    @tasks.lifespan  # type: ignore[type-var]
    async def asking(url: str) -> AsyncIterator[None]:
        yield

    assert_type(pool(), AsyncIterator[None])


def looks_up() -> None:
    assert_type(tasks.find("resize"), Task[..., object])


async def opens() -> None:
    async with open_jobs("http://localhost:11000") as jobs:
        assert_type(jobs, Jobs)


def remotes(calls: Remote, scope: Scope, jobs: Jobs) -> None:
    assert_type(remote(Jobs)(calls, scope, jobs.options), Jobs)
