"""Servers that a test starts for itself alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .redis_server import RedisServer, Servers, bounded_servers


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Servers]:
    """Start Redis servers, which end with the test."""
    with bounded_servers(tmp_path, seconds=60) as servers:
        yield servers


@pytest.fixture
def server(start: Servers) -> RedisServer:
    """Start one Redis server."""
    return start()
