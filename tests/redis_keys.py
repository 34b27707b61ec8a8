"""Leaving a Redis server as it was found, for it may belong to others."""

from __future__ import annotations

from urllib.parse import urlsplit

from noobly.clients.redis_config import RedisConfig, redis_client
from noobly.clients.redis_scan import scan
from noobly.core.config import load, parse_url
from noobly.core.scope import Environment


async def unlinked(url: str, prefix: str) -> None:
    """Delete all keys that begin with a prefix of a test's own."""
    client = redis_client(load(RedisConfig, parse_url(url), {}), Environment())
    await client.start()
    try:
        cursor = ""
        while True:
            cursor, keys = await scan(client, cursor, f"{prefix}*", 1000)
            if keys:
                await client.execute("UNLINK", *keys)
            if not cursor:
                return
    finally:
        await client.close()


async def forgotten(url: str, namespace: str) -> None:
    """Delete all keys of the queues of a namespace, those under a lease included, and the list of their names."""
    for prefix in (f"{{{namespace}:", f"{namespace}:"):
        await unlinked(url, prefix)


def database(url: str, number: int) -> str:
    """Return the URL of another database of a server, so that tests which walk its keys do not meet each other's."""
    return urlsplit(url)._replace(path=f"/{number}").geturl()
