"""Put, get, count and list, with no server at all.

Prints:

    {'name': 'Ada', 'langs': ['en', 'fr']}
    Ada
    None
    nothing here
    ['user:1', 'user:2']
    3
    CacheStats: 3 hits, 2 misses
"""

import asyncio

import msgspec

from noobly import open_cache


class User(msgspec.Struct):
    name: str
    langs: list[str] = []


async def main() -> None:
    async with open_cache() as cache:
        await cache.put("user:1", {"name": "Ada", "langs": ["en", "fr"]}, ttl=60)
        await cache.put("user:2", User("Grace"), ttl=60)
        await cache.put("nobody", None)

        print(await cache.get("user:1"))
        user = await cache.get("user:1", type=User)  # a User, checked; type checkers know it
        print(user.name if user else "gone")

        print(await cache.get("nobody", "nothing here"))  # a stored None is a value
        print(await cache.get("user:3", "nothing here"))
        print(sorted([key async for key in cache.keys("user")]))

        await cache.increment("visits")
        print(await cache.increment("visits", 2, ttl=3600))

        await cache.clear("user")
        assert await cache.get("user:1") is None
        total = (await cache.stats()).total
        print(f"CacheStats: {total.hits} hits, {total.misses} misses")


if __name__ == "__main__":
    asyncio.run(main())
