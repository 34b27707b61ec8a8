"""What holds for all tests."""

from __future__ import annotations

import gc
import logging
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

# The same examples on every machine, and no bound on real time, which a busy machine misses.
settings.register_profile("noobly", deadline=None, derandomize=True)
settings.load_profile("noobly")

# A shell that starts the tests in the background has them ignore it, and then nothing interrupts what tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What is there for all tests stays out of garbage collections, each of which would look through all of it.
gc.disable()


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _level_of_logging() -> Iterator[None]:
    """Put the level of the root logger back, which is for the whole process, and so for the tests that come after."""
    root = logging.getLogger()
    level = root.level
    yield
    if root.level != level:
        root.setLevel(level)
