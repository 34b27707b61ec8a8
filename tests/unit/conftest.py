"""What several files of unit tests open."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from noobly.working import Jobs, open_jobs


@pytest.fixture
async def jobs() -> AsyncIterator[Jobs]:
    """Open jobs in memory."""
    async with open_jobs() as jobs:
        yield jobs


@pytest.fixture
def seen() -> list[str]:
    """Return a list for what a test sees."""
    return []
