"""What the recorded cases do not reach: odd bodies, paths and methods, permissions, and tasks that fail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio

from noobly.app import Noobly
from noobly.server.app import build
from noobly.server.auth import KeyGuard, Sessions
from noobly.server.keys import Keyring, StaticKeys
from noobly.settings import Instance, Settings

from ..serving import serving

QUEUEING, WORKING = "/services/queueing/api", "/services/working/api"
KEY = "key-of-these-tests"
SCRIPTS = {
    "fails.py": "def run(data):\n    raise ValueError('boom')\n",
    "nothing.py": "def run(data):\n    return None\n",
}


@pytest_asyncio.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    for name, text in SCRIPTS.items():
        (tmp_path / name).write_text(text)
    settings = Settings(
        services={"working": {"default": Instance(url="memory://", options={"activities": str(tmp_path)})}}
    )
    async with Noobly.open(settings=settings) as noobly:
        guard = KeyGuard(Keyring([StaticKeys(KEY)]), Sessions())
        async with (
            serving(build(noobly, guard=guard)) as address,
            httpx2.AsyncClient(base_url=address, headers={"x-api-key": KEY}, timeout=30) as made,
        ):
            yield made


async def run(client: httpx2.AsyncClient, script: str) -> dict[str, object]:
    """Run a script and return the task once it has ended."""
    task = (await client.post(f"{WORKING}/run", json={"scriptPath": script})).json()["taskId"]
    while (found := (await client.get(f"{WORKING}/task/{task}")).json())["status"] in ("queued", "running"):
        pass  # Each look waits for the end.
    return found


class TestBodies:
    @pytest.mark.parametrize("kind", ["application/json-patch+json", "application/jsonp", "text/plain", ""])
    async def test_any_other_type_counts_as_an_empty_object(self, client: httpx2.AsyncClient, kind: str) -> None:
        sent = await client.post(f"{QUEUEING}/enqueue/q", content=b'{"task": 1}', headers={"content-type": kind})
        assert (sent.status_code, sent.text) == (400, "Bad Request: Missing task")

    async def test_a_large_body_of_another_type_is_not_read(self, client: httpx2.AsyncClient) -> None:
        sent = await client.post(
            f"{QUEUEING}/enqueue/q", content=b"x" * 200_000, headers={"content-type": "text/plain"}
        )
        assert sent.status_code == 400

    @pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8"])
    async def test_a_byte_order_mark_is_passed_over(self, client: httpx2.AsyncClient, kind: str) -> None:
        content = b'\xef\xbb\xbf{"task": "\xc3\xa9"}'
        assert (
            await client.post(f"{QUEUEING}/enqueue/q", content=content, headers={"content-type": kind})
        ).text == "OK"
        assert (await client.get(f"{QUEUEING}/dequeue/q")).json() == "é"

    @pytest.mark.parametrize("path", [f"{QUEUEING}/enqueue/q", f"{WORKING}/run", "/services/caching/api/put/k"])
    async def test_what_is_nested_too_deeply_is_refused(self, client: httpx2.AsyncClient, path: str) -> None:
        content = b'{"task":' + b"[" * 5000 + b"]" * 5000 + b"}"
        sent = await client.post(path, content=content, headers={"content-type": "application/json"})
        assert sent.status_code == 400


class TestPaths:
    @pytest.mark.parametrize("name", ["%zz", "%", "a%2", "%ff"])
    async def test_bad_escapes_are_refused(self, client: httpx2.AsyncClient, name: str) -> None:
        url = httpx2.URL(str(client.base_url)).copy_with(raw_path=f"{QUEUEING}/size/{name}".encode())
        assert (await client.get(url)).status_code == 400

    @pytest.mark.parametrize(
        ("path", "status"), [("queues", 200), ("queues/", 200), ("queues//", 404), ("size//", 404)]
    )
    async def test_one_slash_at_the_end_is_passed_over(
        self, client: httpx2.AsyncClient, path: str, status: int
    ) -> None:
        assert (await client.get(f"{QUEUEING}/{path}")).status_code == status

    async def test_a_wrong_method_is_not_found_here(self, client: httpx2.AsyncClient) -> None:
        wrong = await client.put(f"{QUEUEING}/enqueue/q", json={"task": 1})
        assert (wrong.status_code, wrong.headers["allow"]) == (404, "POST")
        options = await client.options(f"{QUEUEING}/size/q")
        assert (options.status_code, options.headers["allow"]) == (204, "GET, HEAD")

    async def test_a_task_id_that_cannot_be_is_unknown(self, client: httpx2.AsyncClient) -> None:
        assert (await client.get(f"{WORKING}/task/{'x' * 500}")).status_code == 404


class TestQueueing:
    async def test_whoever_only_looks_takes_no_message(self, client: httpx2.AsyncClient) -> None:
        await client.post(f"{QUEUEING}/enqueue/q", json={"task": 1})
        looked = await client.head(f"{QUEUEING}/dequeue/q")
        assert (looked.status_code, looked.content) == (200, b"")
        assert (await client.get(f"{QUEUEING}/size/q")).json() == 1


class TestWorking:
    async def test_a_task_that_fails_has_its_error_as_result(self, client: httpx2.AsyncClient) -> None:
        found = await run(client, "fails.py")
        assert (found["status"], found["result"], found["error"]) == ("error", "ValueError: boom", "ValueError: boom")

    async def test_a_result_of_nothing_is_there(self, client: httpx2.AsyncClient) -> None:
        found = await run(client, "nothing.py")
        assert (found["status"], found["result"]) == ("completed", None)
        stats = (await client.get(f"{WORKING}/stats")).json()
        assert stats["lastRun"] == found["startedAt"]

    async def test_a_manager_that_is_stopped_takes_no_task(self, client: httpx2.AsyncClient) -> None:
        await client.post(f"{WORKING}/stop")
        refused = await client.post(f"{WORKING}/run", json={"scriptPath": "nothing.py"})
        assert (refused.status_code, refused.text[:29]) == (503, "the worker manager is stopped")
        await client.post(f"{WORKING}/start")
        assert (await client.post(f"{WORKING}/run", json={"scriptPath": "nothing.py"})).status_code == 200

    @pytest.mark.parametrize(
        ("query", "count"), [("1", 1), ("0000000002", 2), ("1.9", 1), ("2x", 2), ("+1", 1), ("x", 3), ("9" * 5000, 3)]
    )
    async def test_the_limit_is_read_as_the_original_does(
        self, client: httpx2.AsyncClient, query: str, count: int
    ) -> None:
        for _ in range(3):
            await run(client, "no-such.py")
        assert len((await client.get(f"{WORKING}/history", params={"limit": query})).json()) == count


class TestMeasuring:
    @pytest.mark.parametrize(
        ("value", "status"),
        [("12.5", 200), (" 7 ", 200), ("-.5e1", 200), ("1_0", 400), ("٣", 400), ("0x10", 400), ("nan", 400), ("", 400)],
    )
    async def test_numbers_as_text(self, client: httpx2.AsyncClient, value: str, status: int) -> None:
        sent = await client.post("/services/measuring/api/add", json={"metric": "m", "value": value})
        assert sent.status_code == status


class TestKeys:
    async def test_an_empty_header_is_no_key(self, client: httpx2.AsyncClient) -> None:
        good = {"x-api-key": "", "authorization": f"Bearer {KEY}"}
        assert (await client.get(f"{QUEUEING}/queues", headers=good)).status_code == 200
        none = await client.get(f"{QUEUEING}/queues", headers={"x-api-key": ""})
        assert (none.status_code, none.json()["code"]) == (401, "MISSING_API_KEY")
