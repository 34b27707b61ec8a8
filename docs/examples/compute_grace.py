"""Compute an entry once for all who ask, and serve the old value while computing it anew fails.

Prints:

    the database is asked
    100 callers, 1 query: {'price': 42}
    the database is asked
    the database is down, and callers get {'price': 42}
    None is remembered too: asked 1 time
"""

import asyncio

from noobly import Computed, open_cache


class Database:
    def __init__(self) -> None:
        self.up = True
        self.asked = 0

    async def price(self) -> dict[str, int]:
        print("the database is asked")
        await asyncio.sleep(0.01)
        if not self.up:
            raise ConnectionError("the database is down")
        return {"price": 42}

    async def nothing(self) -> Computed:
        self.asked += 1
        return Computed(value=None, ttl=5)  # a missing row is worth remembering, but not for long


async def main() -> None:
    database = Database()
    async with open_cache(ttl=300, grace=3600) as cache:

        async def price() -> object:
            return await cache.get_or_compute("price:7", database.price)

        prices = await asyncio.gather(*(price() for _ in range(100)))
        print(f"{len(prices)} callers, 1 query: {prices[0]}")

        database.up = False
        await cache.expire("price:7")  # as its ttl would do; with grace it is kept, as a stale entry
        print(f"the database is down, and callers get {await price()}")

        for _ in range(3):
            await cache.get_or_compute("price:8", database.nothing)
        print(f"None is remembered too: asked {database.asked} time")


if __name__ == "__main__":
    asyncio.run(main())
