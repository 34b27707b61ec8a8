"""What importing costs: no optional package, no server, and little time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import noobly
from noobly.core.errors import NooblyError

PACKAGES = [
    "aio_pika",
    "aiomcache",
    "aiormq",
    "botocore",
    "brotli",
    "bullmq",
    "cyclopts",
    "granian",
    "hiredis",
    "httpx2",
    "opentelemetry.sdk",
    "prometheus_client",
    "redis",
    "rich",
    "starlette",
    "structlog",
    "uvloop",
    "watchfiles",
    "zstandard",
]
OPTIONAL = [
    "aio_pika",
    "aiomcache",
    "aiormq",
    "botocore",
    "brotli",
    "bullmq",
    "cyclopts",
    "granian",
    "hiredis",
    "opentelemetry.sdk",
    "redis",
    "structlog",
    "uvloop",
    "watchfiles",
    "zstandard",
]
SECONDS = 0.150


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded_by(statement: str, packages: list[str]) -> list[str]:
    report = f"import json, sys; print(json.dumps([name for name in {packages!r} if name in sys.modules]))"
    return json.loads(python(f"{statement}; {report}"))


class TestPackages:
    def test_import_noobly_loads_none(self):
        assert loaded_by("import noobly", PACKAGES) == []

    @pytest.mark.parametrize(
        "names", ["Noobly", "SyncNoobly", "open_cache", "open_queues", "open_jobs", "open_logs", "open_metrics"]
    )
    def test_using_its_names_loads_no_optional_one(self, names):
        assert loaded_by(f"from noobly import {names}", OPTIONAL) == []

    def test_a_cache_in_memory_needs_none(self):
        use = "async def main():\n async with Noobly.open() as n: await n.caching.put('k', 1)\nasyncio.run(main())"
        statement = f"exec({('import asyncio; from noobly import Noobly' + chr(10) + use)!r})"
        assert loaded_by(statement, OPTIONAL) == []


class TestTime:
    def test_import_noobly_is_quick(self):
        measure = "import time; began = time.perf_counter(); import noobly; print(time.perf_counter() - began)"
        # The best of several runs: what else the machine does can only add to the time.
        assert min(float(python(measure)) for _ in range(5)) < SECONDS


class TestNames:
    def test_each_name_is_there_and_says_where_it_lives(self):
        for name in noobly.__all__:
            assert getattr(noobly, name) is not None
            assert name in dir(noobly)
        assert noobly.NooblyError is NooblyError
        assert noobly.__version__.count(".") == 2

    def test_the_table_of_homes_is_complete(self):
        assert {*noobly._HOMES, "__version__"} == set(noobly.__all__)

    def test_a_name_that_is_not_there(self):
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            _ = noobly.nothing

    def test_types_are_shipped(self):
        assert (Path(noobly.__file__).parent / "py.typed").is_file()
