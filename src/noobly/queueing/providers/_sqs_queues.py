"""The queues in SQS: where each is, made with its first message, and which there are."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial

import msgspec

from noobly.clients.aws import AwsError, AwsJson
from noobly.core.errors import NotFound
from noobly.queueing import names
from noobly.queueing.providers._sqs_calls import every
from noobly.queueing.providers._sqs_names import Naming, told
from noobly.queueing.providers._sqs_policies import Policies, Policy, written
from noobly.queueing.providers._sqs_wire import (
    ABSENT,
    Ask,
    Attributes,
    Create,
    Listed,
    Listing,
    Located,
    Named,
    Tagged,
)

_MOST = 10_000
_PAGE = 1000
_LONGEST_RETENTION = 1_209_600
_LOOK = 0.5
"""Seconds between looks for a queue that nobody has sent to."""


class Making(msgspec.Struct, frozen=True, kw_only=True):
    """How queues are made.

    Args:
        create: Whether they are, and changed where they are there; otherwise sending to a missing one fails.
        fifo: Whether they are FIFO queues.
        retention: Seconds SQS keeps messages that nobody deletes; dead letters it keeps for 14 days.
        receives: Deliveries after which SQS itself puts a message among the dead letters.
    """

    create: bool
    fifo: bool
    retention: int
    receives: int


class Directory:
    """Where the queues of a namespace are; what was found once is not asked for again."""

    def __init__(self, aws: AwsJson, naming: Naming, making: Making) -> None:
        self._aws, self._naming, self._making = aws, naming, making
        self._policies = Policies(aws, receives=making.receives, change=making.create)
        self._urls: dict[str, str] = {}
        self._making_one = asyncio.Lock()
        self._made = asyncio.Event()
        self._looking: set[str] = set()

    async def find(self, queue: str) -> str | None:
        """Return the URL of a queue; None where there is none."""
        if url := self._urls.get(queue):
            return url
        try:
            found = await self._aws.call("GetQueueUrl", Named(queue_name=self._naming.place(queue).name), Located)
        except AwsError as error:
            if error.code in ABSENT:
                return None
            raise
        await self._policies.check(queue, found.queue_url)
        return self._keep(queue, found.queue_url)

    async def wait(self, queue: str, until: float) -> str | None:
        """Return the URL of a queue as soon as there is one; None if there is none until a time of the loop.

        Of those who wait for the same queue, one at a time looks for it.
        """
        loop = asyncio.get_running_loop()
        while (url := await self._look(queue)) is None and (left := until - loop.time()) > 0:
            try:
                async with asyncio.timeout(min(left, _LOOK)):
                    await self._made.wait()
            except TimeoutError:
                continue
        return url

    async def _look(self, queue: str) -> str | None:
        if queue in self._looking:
            return self._urls.get(queue)
        self._looking.add(queue)
        try:
            return await self.find(queue)
        finally:
            self._looking.discard(queue)

    async def make(self, queue: str) -> str:
        """Return the URL of a queue, which is made, with that of its dead letters, where there is none.

        Raises:
            NotFound: There is none, and none shall be made.
        """
        if url := self._urls.get(queue):
            return url
        async with self._making_one:
            return await self._make(queue)

    async def _make(self, queue: str) -> str:
        if url := await self.find(queue):
            return url
        if not self._making.create:
            name = self._naming.place(queue).name
            raise NotFound(f"queue {queue!r} does not exist in SQS: make {name}, or set create to true")
        return await self._create(queue, await self._attributes(queue))

    def forget(self, queue: str) -> None:
        """Ask for a queue again, for it has been deleted."""
        self._urls.pop(queue, None)

    def _keep(self, queue: str, url: str) -> str:
        self._urls[queue] = url
        made, self._made = self._made, asyncio.Event()
        made.set()
        return url

    async def _create(self, queue: str, attributes: Mapping[str, str]) -> str:
        place = self._naming.place(queue)
        request = Create(queue_name=place.name, attributes=dict(attributes), tags=dict(place.tags))
        try:
            return self._keep(queue, (await self._aws.call("CreateQueue", request, Located)).queue_url)
        except AwsError as error:
            # Somebody else made it meanwhile, in another way.
            if error.code in ("QueueNameExists", "QueueAlreadyExists") and (url := await self.find(queue)):
                return url
            raise

    async def _attributes(self, queue: str) -> dict[str, str]:
        making = self._making
        # SQS counts from when a message was first sent, also where it moves it to the dead letters itself.
        retention = _LONGEST_RETENTION if names.is_dead(queue) else making.retention
        attributes = {"MessageRetentionPeriod": str(retention)}
        if making.fifo:
            attributes["FifoQueue"] = "true"
        if not names.is_dead(queue):
            dead = await self._make(names.dead(queue))
            arn = (await self.attributes(dead, ["QueueArn"]))["QueueArn"]
            attributes |= written(Policy(arn, making.receives))
        return attributes

    async def attributes(self, url: str, wanted: Sequence[str]) -> dict[str, str]:
        """Return attributes of a queue."""
        request = Ask(queue_url=url, attribute_names=list(wanted))
        return (await self._aws.call("GetQueueAttributes", request, Attributes)).attributes

    async def all(self) -> list[str]:
        """Return the names of the queues, 10,000 at most."""
        urls: list[str] = []
        token: str | None = None
        while len(urls) < _MOST:
            request = Listing(queue_name_prefix=self._naming.prefix, max_results=_PAGE, next_token=token)
            page = await self._aws.call("ListQueues", request, Listed)
            urls += page.queue_urls
            token = page.next_token
            if token is None:
                break
        named = [self._naming.queue(_name(url)) for url in urls]
        tagged = await self._told([url for url in urls if self._naming.digested(_name(url))])
        return sorted({name for name in (*named, *tagged) if name is not None})[:_MOST]

    async def _told(self, urls: Sequence[str]) -> list[str | None]:
        async def ask(url: str) -> str | None:
            return told((await self._aws.call("ListQueueTags", Ask(queue_url=url), Tagged)).tags)

        return await every([partial(ask, url) for url in urls])


def _name(url: str) -> str:
    return url.rpartition("/")[2]
