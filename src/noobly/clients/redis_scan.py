"""Walking the keys of a Redis server, or of all primaries of a cluster, page by page."""

from __future__ import annotations

from noobly.clients.redis import RedisClient, Reply
from noobly.clients.redis_topology import ClusterClient
from noobly.core.errors import Internal, InvalidArgument


async def scan(client: RedisClient, cursor: str, pattern: str, count: int) -> tuple[str, list[bytes]]:
    """Return one page of the keys that match, and the cursor of the next page, empty at the end.

    A page may be empty before the end, and a key may come twice (https://redis.io/docs/latest/commands/scan/).

    Args:
        client: Where to look.
        cursor: Empty at the beginning; then what the page before gave.
        pattern: A glob; escape what a user wrote.
        count: About how many keys to look at.
    """
    node, _, place = (cursor or "0:0").partition(":")
    if not (node.isdigit() and place.isdigit()):
        raise InvalidArgument(f"{cursor!r} is not a cursor that a page of keys ended with")
    command = ("SCAN", place, "MATCH", pattern, "COUNT", count)
    if not isinstance(client, ClusterClient):
        following, keys = _page(await client.execute(*command))
        return (f"0:{following}" if following != "0" else "", keys)
    following, keys = _page(await client.execute_at(int(node), *command))
    if following != "0":
        return f"{node}:{following}", keys
    return (f"{int(node) + 1}:0" if int(node) + 1 < client.primaries else "", keys)


def _page(reply: Reply) -> tuple[str, list[bytes]]:
    match reply:
        case [bytes() as cursor, list() as keys]:
            return cursor.decode(), [key for key in keys if isinstance(key, bytes)]
    raise Internal("redis answered SCAN with something else")
