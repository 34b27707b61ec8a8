"""Drop everything that one change makes wrong, however many entries that is.

Prints:

    2 of 3 pages are left
    a value computed from old data is not kept: None
"""

import asyncio

from noobly import open_cache


async def main() -> None:
    async with open_cache() as cache:
        await cache.put("page:/ada", "Ada's page", tags=["user:1"])
        await cache.put("page:/grace", "Grace's page", tags=["user:2"])
        await cache.put("page:/about", "About us")

        await cache.invalidate(["user:1"])  # Ada has a new name
        pages = await cache.get_many(["page:/ada", "page:/grace", "page:/about"])
        print(f"{len(pages)} of 3 pages are left")

        async def render() -> str:
            page = "Grace's posts"  # reads the old name ...
            await cache.invalidate(["user:2"])  # ... while somebody changes it
            return page

        await cache.get_or_compute("page:/grace/posts", render, tags=["user:2"])
        print(f"a value computed from old data is not kept: {await cache.get('page:/grace/posts')}")


if __name__ == "__main__":
    asyncio.run(main())
