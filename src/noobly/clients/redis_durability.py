"""Asking a Redis server whether it keeps what it is given."""

from __future__ import annotations

import logging

from noobly.clients.redis import RedisClient, RedisReplyError, Reply
from noobly.clients.redis_topology import ClusterClient
from noobly.core.errors import ConfigError


async def check_durability(client: RedisClient, wanted: str, what: str, log: logging.Logger) -> None:
    """Warn, or refuse, where a server would lose what it holds at its end.

    Args:
        client: Connected.
        wanted: ``warn``, ``require`` or ``ignore``.
        what: What it holds, in the plural.
        log: Where to warn.

    Raises:
        ConfigError: ``require``, and the server keeps things in its memory only, or does not say.
    """
    if wanted == "ignore":
        return
    found = [flaw for report in await _reports(client) for flaw in _flaws(report)]
    if not found:
        return
    message = f"redis may lose {what}: {'; '.join(dict.fromkeys(found))}"
    if wanted == "require":
        raise ConfigError(f"{message}; set appendonly yes and maxmemory-policy noeviction, or durability=warn")
    log.warning("%s", message)


async def _reports(client: RedisClient) -> list[dict[str, str] | None]:
    if not isinstance(client, ClusterClient):
        return [await _report(client, None)]
    return [await _report(client, node) for node in range(client.primaries)]


async def _report(client: RedisClient, node: int | None) -> dict[str, str] | None:
    """Return what a server says of itself; None where it does not, as managed servers may."""
    try:
        if node is not None and isinstance(client, ClusterClient):
            return _read(await client.execute_at(node, "INFO"))
        return _read(await client.execute("INFO"))
    except RedisReplyError:
        return None


def _read(reply: Reply) -> dict[str, str]:
    text = reply.decode() if isinstance(reply, bytes) else ""
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def _flaws(report: dict[str, str] | None) -> list[str]:
    if report is None:
        return ["it does not say whether it keeps them"]
    flaws = []
    if report.get("aof_enabled") == "0" and report.get("connected_slaves") == "0":
        flaws.append("it has neither an append-only file nor a replica")
    if report.get("maxmemory_policy", "").startswith("allkeys") and report.get("maxmemory") != "0":
        flaws.append(f"when its memory is full it drops keys ({report['maxmemory_policy']})")
    return flaws
