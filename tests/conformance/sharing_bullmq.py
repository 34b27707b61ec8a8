"""A Redis that Node's BullMQ and Python share."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from noobly.core.clock import fresh_id
from noobly.testing import eventually
from noobly.testing.servers import Node, node_or_skip, server_or_skip
from noobly.working import Jobs, open_jobs

from ..redis_keys import database, unlinked

HERE = Path(__file__).parent / "bullmq"
PATIENCE = 60


class Shared:
    """One Redis, one prefix, and a Node that has BullMQ."""

    def __init__(self, redis: str, node: Node) -> None:
        self.redis, self.node = redis, node
        self.prefix = f"bull-{fresh_id()[:12]}"
        self.queue = "shared"
        self.url = f"{redis.replace('redis:', 'bullmq:', 1)}?prefix={self.prefix}"

    def start(self, script: str, *arguments: str) -> asyncio.subprocess.Process:
        return asyncio.create_subprocess_exec(
            *(self.node.program, str(HERE / script), self.redis, self.prefix, self.queue, *arguments),
            env={**os.environ, **self.node.environment},
            stdout=asyncio.subprocess.PIPE,
        )

    @asynccontextmanager
    async def worker(self, **options: object) -> AsyncIterator[list[dict[str, object]]]:
        """Run a worker of Node; what it tells is added to the list."""
        process = await self.start("worker.cjs", json.dumps(options))
        told: list[dict[str, object]] = []

        async def listen() -> None:
            while line := await process.stdout.readline():
                told.append(json.loads(line))

        listening = asyncio.create_task(listen())
        try:
            await eventually(lambda: {"ready": True} in told, PATIENCE)
            yield told
        finally:
            process.terminate()
            await process.wait()
            await listening

    async def produce(self, *jobs: dict[str, object]) -> list[dict[str, object]]:
        """Let Node add jobs and wait for their ends."""
        process = await self.start("producer.cjs", json.dumps(jobs))
        async with asyncio.timeout(PATIENCE):
            output, _ = await process.communicate()
        return [json.loads(line) for line in output.splitlines()]

    async def steer(self, *steps: list[object]) -> list[object]:
        """Let Node call methods of the queue, or of a job, and return what each gave."""
        process = await self.start("steps.cjs", json.dumps(steps))
        async with asyncio.timeout(PATIENCE):
            output, _ = await process.communicate()
        assert process.returncode == 0
        return [json.loads(line) for line in output.splitlines()]


@pytest.fixture
def shared() -> Iterator[Shared]:
    node = node_or_skip()
    with server_or_skip("redis") as url:
        yield Shared(database(url, 2), node)


@pytest.fixture
async def jobs(shared: Shared) -> AsyncIterator[Jobs]:
    async with open_jobs(shared.url) as jobs:
        yield jobs
    await unlinked(shared.redis, f"{shared.prefix}:")
