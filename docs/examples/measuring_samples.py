"""Samples over time, kept in a file: add, ask, close, open again, ask again.

Prints:

    total 435.0 of 30
    median within 1 %: True
    three points: [45.0, 145.0, 245.0]
    after opening again: 435.0
"""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

from noobly.measuring import open_metrics


async def main() -> None:
    url = f"sqlite://{Path.cwd()}/metrics.db"
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
    async with open_metrics(url) as metrics:
        for minute in range(30):
            await metrics.add("visits", minute, {"page": "home"}, at=hour + timedelta(minutes=minute))
        total = await metrics.total("visits")
        print(f"total {total.value} of {total.count}")
        median = (await metrics.percentile("visits", 50, labels={"page": "home"})).value or 0
        print(f"median within 1 %: {abs(median - 14) <= 0.14}")
        chart = await metrics.range("visits", hour, step=timedelta(minutes=10))
        print(f"three points: {[point.total for point in chart.points]}")

    async with open_metrics(url) as metrics:
        print(f"after opening again: {(await metrics.total('visits')).value}")


if __name__ == "__main__":
    asyncio.run(main())
