from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from noobly.testing import free_port, server_or_skip


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    with server_or_skip("redis") as url:
        yield f"redis://{urlsplit(url).netloc}"


@pytest.fixture(scope="session")
def memcached_url() -> Iterator[str]:
    with server_or_skip("memcached") as url:
        yield f"memcached://{urlsplit(url).netloc}"


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A development server, as scripts/serve starts one."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    command = [sys.executable, "-m", "noobly", "serve", "--dev", "--port", str(port), "--data-dir", str(folder)]
    with (folder / "output.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(url, server, folder / "output.log")
            yield url
        finally:
            server.terminate()
            server.wait(10)


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 20
    while server.poll() is None and time.monotonic() < until:
        try:
            if httpx2.get(f"{url}/health/ready", timeout=1).is_success:
                return
        except httpx2.TransportError:
            time.sleep(0.05)
    pytest.fail(f"the server did not become ready:\n{log.read_text()}")
