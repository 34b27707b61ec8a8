"""One at a time, in all processes that share the store.

Prints:

    ['one begins', 'one ends', 'two begins', 'two ends']
    the lock 'nightly' was held by somebody else for 0.05 s
"""

import asyncio

from noobly import Cache, open_cache
from noobly.core.errors import Conflict


async def work(cache: Cache, name: str, log: list[str]) -> None:
    async with cache.lock("import", lease=10, wait=5):
        log.append(f"{name} begins")
        await asyncio.sleep(0.02)
        log.append(f"{name} ends")


async def main() -> None:
    async with open_cache() as cache:
        log: list[str] = []
        await asyncio.gather(work(cache, "one", log), work(cache, "two", log))
        print(log)

        async with cache.lock("nightly"):
            try:
                async with cache.lock("nightly", wait=0.05):
                    print("never")
            except Conflict as error:
                print(error)


if __name__ == "__main__":
    asyncio.run(main())
