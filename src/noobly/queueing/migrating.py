"""Taking over a queue of nooblyjs, which is a Redis list of JSON texts, pushed on the left and popped on the right."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import cast

from noobly.clients.redis import Command, RedisClient, RedisReplyError, Reply, classify
from noobly.clients.redis_config import RedisConfig, redis_client
from noobly.core.checks import whole
from noobly.core.codec import DECODE_JSON, UNREADABLE
from noobly.core.config import load, parse_url
from noobly.core.errors import Internal, TooLarge, Unavailable
from noobly.core.scope import Environment
from noobly.queueing.messages import Outbound
from noobly.queueing.queues import Queues

_MOST = 1000

_log = logging.getLogger("noobly.queueing")


@asynccontextmanager
async def connected(url: str, environment: Environment) -> AsyncIterator[RedisClient]:
    """Connect to the server that holds a list, for the body of an ``async with``.

    Args:
        url: As that of the Redis provider, such as ``redis://localhost/0?password=env:REDIS_PASSWORD``.
        environment: What the client gets its chance from.

    Raises:
        ConfigError: The URL is wrong.
        Unavailable: The server does not answer.
    """
    client = redis_client(load(RedisConfig, parse_url(url), {}), environment)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def waiting(client: RedisClient, key: str) -> int:
    """Return how many messages of a nooblyjs list are still to be moved.

    Raises:
        Conflict: The key holds no list.
        Unavailable: Redis failed.
    """
    return sum(cast("list[int]", await _all(client, [("LLEN", key), ("LLEN", _aside(key))])))


async def migrate(
    client: RedisClient,
    key: str,
    queues: Queues,
    queue: str,
    *,
    batch: int = 100,
    advance: Callable[[int], None] = lambda _: None,
) -> int:
    """Move all messages of a nooblyjs list to a queue, the oldest first; what is no JSON goes as text, or as bytes.

    Nothing is lost: messages wait in the list ``<key>:migrating`` until they are sent. Calling it again after an
    interruption goes on there; it may send again up to ``batch`` messages whose sending was interrupted. No two calls
    may move the same list at once; nooblyjs may go on pushing. A message that is too large for the queue is put into
    the list ``<key>:refused``, and a warning is logged.

    Args:
        client: Connected to the server that holds the list.
        key: The list's key.
        queues: Where the messages go.
        queue: The queue they go to.
        batch: How many are moved together, up to 1000.
        advance: Is told how many have just been moved.

    Returns:
        How many were moved.

    Raises:
        InvalidArgument: ``batch`` is out of bounds.
        Conflict: The key holds no list.
        Unavailable: Redis failed, or the queue did not take a message, which is still in the list then.
    """
    whole(batch, "batch", 1, _MOST)
    aside, moved = _aside(key), 0
    while texts := await _put_aside(client, key, aside, batch):
        moved += await _send(client, key, texts, queues, queue)
        advance(len(texts))
    return moved


def _aside(key: str) -> str:
    return f"{key}:migrating"


async def _put_aside(client: RedisClient, key: str, aside: str, batch: int) -> list[bytes]:
    """Return what waits to be sent, oldest first: of an interrupted call, else the next ones."""
    (held,) = await _all(client, [("LRANGE", aside, -batch, -1)])
    if held:
        return cast("list[bytes]", held)[::-1]
    found = await _all(client, [("LMOVE", key, aside, "RIGHT", "LEFT")] * batch)
    return [text for text in found if isinstance(text, bytes)]


async def _send(client: RedisClient, key: str, texts: Sequence[bytes], queues: Queues, queue: str) -> int:
    """Send messages; where they are too large together, one by one."""
    try:
        sent = await queues.send_many(queue, [Outbound(message=_message(text)) for text in texts])
    except TooLarge as error:
        if len(texts) > 1:
            return sum([await _send(client, key, [text], queues, queue) for text in texts])
        await _refuse(client, key, texts[0], error)
        return 0
    aside = _aside(key)
    done = [text for text, receipt in zip(texts, sent, strict=True) if not receipt.error]
    await _all(client, [("LREM", aside, -1, text) for text in done])
    if len(done) < len(texts):
        reason = next(receipt.error for receipt in sent if receipt.error)
        raise Unavailable(f"queue {queue!r} did not take a message, which waits in the list {aside!r}: {reason}")
    return len(done)


async def _refuse(client: RedisClient, key: str, text: bytes, error: TooLarge) -> None:
    """Put a message where it holds nothing up; interrupted between the two, it is there twice, but not lost."""
    refused = f"{key}:refused"
    await _all(client, [("LPUSH", refused, text), ("LREM", _aside(key), -1, text)])
    _log.warning("a message of the list %r stays behind, in the list %r: %s", key, refused, error)


def _message(text: bytes) -> object:
    try:
        return DECODE_JSON(text)
    except UNREADABLE:
        return _text(text)


def _text(text: bytes) -> str | bytes:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text


async def _all(client: RedisClient, commands: Sequence[Command]) -> list[Reply]:
    replies = await client.execute_many(commands)
    for reply in replies:
        if isinstance(reply, RedisReplyError):
            raise classify(reply) or Internal(f"redis refused to move messages: {reply}") from reply
    return cast("list[Reply]", replies)
