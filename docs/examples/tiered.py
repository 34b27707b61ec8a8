"""Memory in front of Redis, in two processes' stead: what one writes, the other one sees.

Prints:

    both read 1
    the other one's memory let go of it: 2
"""

import asyncio
from os import environ

from noobly import open_cache

REDIS = environ.get("REDIS_URL", "redis://localhost:6379")
URL = f"tiered+{REDIS}/0?namespace=docs-tiered"


async def main() -> None:
    async with open_cache(URL) as here, open_cache(URL) as there:
        await here.put("rate", 1, ttl=60)
        assert await here.get("rate") == await there.get("rate") == 1
        print("both read 1")  # and further reads do not leave the process

        await here.put("rate", 2, ttl=60)
        for _ in range(1000):
            if await there.get("rate") == 2:  # as soon as the server has told of the change
                break
            await asyncio.sleep(0.005)
        print(f"the other one's memory let go of it: {await there.get('rate')}")
        await here.clear()


if __name__ == "__main__":
    asyncio.run(main())
