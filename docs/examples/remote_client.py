"""A cache on a Noobly server: the same API over HTTP. Start one with scripts/serve first.

Prints:

    {'name': 'Ada'}
    computed once: [42, 42, 42]
    Conflict: the lock 'report' was held by somebody else for 0.05 s
"""

import asyncio
from os import environ

from noobly import open_cache
from noobly.core.errors import Conflict

URL = environ.get("NOOBLY_URL", "http://127.0.0.1:11000")


async def main() -> None:
    # On a server with API keys: open_cache(URL, key="env:NOOBLY_KEY")
    async with open_cache(URL) as cache, open_cache(URL) as other:
        await cache.put("client:1", {"name": "Ada"}, ttl=60, tags=["clients"])
        print(await other.get("client:1"))

        answers = await asyncio.gather(*(cache.get_or_compute("client:sum", lambda: 42, ttl=60) for _ in range(3)))
        print(f"computed once: {answers}")

        async with cache.lock("report"):
            try:
                async with other.lock("report", wait=0.05):
                    print("never")
            except Conflict as error:
                print(f"Conflict: {error}")
        await cache.clear("client")


if __name__ == "__main__":
    asyncio.run(main())
