"""Log to a file, search it, and find what was logged before a restart.

Prints:

    warn refused {'order': 8}
    info paid {'order': 7, 'card': '[redacted]'}
    2 records, 1 of them a warning
"""

import asyncio

from noobly.logging import open_logs


async def main() -> None:
    async with open_logs("file:shop.jsonl") as logs:
        logs.info("paid", order=7, card="4111 1111 1111 1111")
        logs.warn("refused", order=8)

    async with open_logs("file:shop.jsonl") as logs:
        async for record in logs.search_all():
            print(record.level, record.message, record.attributes)
        counts = await logs.counts(bucket=3600)
        warnings = sum(count.count for count in counts if count.level == "warn")
        print(f"{sum(count.count for count in counts)} records, {warnings} of them a warning")


if __name__ == "__main__":
    asyncio.run(main())
