"""The pages in a real browser: they work, ask only their own server, and keep within their policy."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright, expect

from noobly.app import Noobly
from noobly.server.app import Application
from noobly.server.auth import DevGuard, Guard, KeyGuard, Sessions
from noobly.server.keys import Keyring, KeyStore
from noobly.server.routes import Endpoint, Open
from noobly.services import SERVICES
from noobly.settings import Instance, Settings
from tests.serving import serving

pytestmark = pytest.mark.servers

PROGRAM = "chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
SETTINGS = Settings(services={"caching": {"default": Instance(url="memory://"), "sessions": Instance(url="memory://")}})


@pytest_asyncio.fixture
async def browser() -> AsyncIterator[Browser]:
    program = shutil.which(PROGRAM)
    if program is None:
        message = f"{PROGRAM} is not installed: run scripts/servers install, or apt-get install {PROGRAM}"
        if os.environ.get("NOOBLY_REQUIRE_SERVERS") == "all":
            pytest.fail(f"NOOBLY_REQUIRE_SERVERS wants it, and {message}", pytrace=False)
        pytest.skip(message)
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield started
        await started.close()


@pytest_asyncio.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    opened = await browser.new_page()
    opened.set_default_timeout(10_000)
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def noobly() -> AsyncIterator[Noobly]:
    async with Noobly.open(settings=SETTINGS) as opened:
        yield opened


@pytest_asyncio.fixture
async def address(noobly: Noobly) -> AsyncIterator[str]:
    async with serving(Application(noobly, DevGuard())) as base:
        yield base


class Watch:
    """What a page complained about and where it sent requests."""

    def __init__(self, page: Page) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda said: self._hear(said.type, said.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def _hear(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(text)

    def assert_quiet(self, base: str) -> None:
        assert self.complaints == []
        assert self.requests
        assert [url for url in self.requests if not url.startswith(f"{base}/")] == []


async def send(page: Page) -> None:
    await page.get_by_role("button", name="Send").click()


async def choose(page: Page, operation: str) -> None:
    await page.locator(f'#operations a[href="#{operation}"]').click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(operation.partition("_")[2].partition("__")[0])


async def test_an_entry_is_put_and_got_through_the_forms(page: Page, address: str, noobly: Noobly) -> None:
    watch = Watch(page)
    await page.goto(f"{address}/explorer#caching_put__sessions")
    await page.get_by_label("key required").fill("user:1 & more")
    await page.get_by_label("ttl").fill("60")
    await page.get_by_label("tags").fill("users\nstaff")
    await page.get_by_label("body required").fill('{"name": "Ada", "big": 9007199254740993}')
    await expect(page.get_by_text('await noobly.caching["sessions"].put("user:1 & more", ')).to_be_visible()
    await send(page)
    await expect(page.get_by_text("204 No Content")).to_be_visible()
    stored = await noobly.caching["sessions"].lookup("user:1 & more")
    assert stored is not None
    assert (stored.value, stored.tags) == ({"name": "Ada", "big": 9007199254740993}, ["staff", "users"])

    await choose(page, "caching_get__sessions")
    await page.get_by_label("key required").fill("user:1 & more")
    await page.get_by_label("key required").press("Enter")
    await expect(page.get_by_label("Body")).to_contain_text('"name": "Ada"')
    await expect(page.get_by_label("Body")).to_contain_text("9007199254740993")
    watch.assert_quiet(address)


async def test_arguments_become_one_body_with_their_types(page: Page, address: str, noobly: Noobly) -> None:
    watch = Watch(page)
    await page.goto(f"{address}/explorer#caching_increment")
    await page.get_by_label("key required").fill("it's")
    await page.get_by_label("amount").fill("41")
    await page.get_by_label("Idempotency-Key").fill("once")
    sample = page.get_by_text("curl -X POST")
    await expect(sample).to_contain_text('-H "x-api-key: $NOOBLY_KEY"')
    await expect(sample).to_contain_text("""--data-raw '{"key": "it'\\''s", "amount": 41}'""")
    await send(page)
    await expect(page.get_by_label("Body")).to_have_text("41")
    await send(page)
    await expect(page.get_by_text("idempotency-replayed")).to_be_attached()
    assert await noobly.caching.get("it's") == 41
    watch.assert_quiet(address)


async def test_a_structured_argument_shows_what_it_consists_of(page: Page, address: str, noobly: Noobly) -> None:
    watch = Watch(page)
    await page.goto(f"{address}/explorer#working_add")
    jobs = page.get_by_label("jobs required")
    await expect(jobs).to_have_attribute("placeholder", '[ { "task": "" } ]')
    await page.get_by_text("Its members").click()
    await expect(page.locator(".field", has=jobs).get_by_text("priority", exact=True).first).to_be_visible()
    await jobs.fill('[{"task": "resize", "args": {"name": "Ada"}, "delay": 60}]')
    await send(page)
    await expect(page.get_by_label("Body")).to_contain_text('"duplicate": false')
    (job,) = await noobly.working.list_jobs()
    assert (job.task, job.args, job.state.value) == ("resize", {"name": "Ada"}, "delayed")
    await page.get_by_text("queueing · default").click()
    await choose(page, "queueing_send")
    await page.get_by_label("queue required").fill("orders")
    await page.get_by_label("message required").fill('{"order": 7}')
    await page.get_by_label("headers").fill('{"tenant": "t1"}')
    await send(page)
    await expect(page.get_by_label("Body")).to_contain_text('"duplicate": false')
    assert [(one.value, one.headers) for one in await noobly.queueing.peek("orders")] == [
        ({"order": 7}, {"tenant": "t1"})
    ]
    watch.assert_quiet(address)


async def test_raw_bodies_are_sent_and_bytes_shown(page: Page, address: str, noobly: Noobly) -> None:
    await page.goto(f"{address}/explorer#caching_put")
    await page.get_by_label("key required").fill("k")
    await page.get_by_label("Sent as").select_option("application/octet-stream")
    await page.get_by_label("body required").fill("not JSON")
    await send(page)
    await expect(page.get_by_text("204 No Content")).to_be_visible()
    assert await noobly.caching.get("k") == b"not JSON"
    await choose(page, "caching_get")
    await page.get_by_label("key required").fill("k")
    await send(page)
    await expect(page.get_by_label("Body")).to_contain_text("6e 6f 74 20 4a 53 4f 4e")


async def test_what_is_wrong_is_said_before_and_after_sending(page: Page, address: str) -> None:
    watch = Watch(page)
    await page.goto(f"{address}/explorer#caching_put")
    await page.get_by_label("key required").fill("k")
    await page.get_by_label("body required").fill("{")
    await expect(page.get_by_text("This is not JSON")).to_be_visible()
    await send(page)
    assert not any("/entry" in url for url in watch.requests)
    watch.assert_quiet(address)

    await choose(page, "caching_get")
    await page.get_by_label("key required").fill("absent")
    await send(page)
    await expect(page.get_by_role("alert")).to_contain_text("Not found")
    await expect(page.get_by_text("404 Not Found", exact=True)).to_be_visible()


async def test_search_and_keyboard(page: Page, address: str) -> None:
    watch = Watch(page)
    await page.goto(f"{address}/explorer")
    await expect(page.get_by_role("button", name="Send")).to_be_visible()
    await page.keyboard.press("/")
    await page.keyboard.type("touch sessions")
    found = page.locator("#operations a:visible")
    await expect(found).to_have_count(1)
    await found.focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("touch")
    await expect(page.locator("main")).to_be_focused()
    unnamed = await page.evaluate(
        "() => [...document.querySelectorAll('input, select, textarea')].filter((each) => !each.labels.length).length"
    )
    assert unnamed == 0
    watch.assert_quiet(address)


async def test_the_overview_shows_each_instance(page: Page, address: str) -> None:
    watch = Watch(page)
    await page.goto(f"{address}/")
    await expect(page.locator("tbody tr")).to_have_count(len(SERVICES) + 1)
    row = page.locator("tbody tr", has_text="sessions")
    await expect(row).to_contain_text("ok")
    await row.get_by_role("link").click()
    await expect(page.get_by_text("/v1/caching/sessions", exact=True)).to_be_visible()
    watch.assert_quiet(address)


async def test_every_operation_can_be_shown(page: Page, address: str) -> None:
    watch = Watch(page)
    await page.goto(f"{address}/explorer")
    await expect(page.get_by_role("button", name="Send")).to_be_visible()
    links = page.locator("#operations a")
    hashes = await links.evaluate_all("(all) => all.map((each) => each.hash)")
    assert len(hashes) > 60
    for hash in hashes:
        await page.goto(f"{address}/explorer{hash}")
        await expect(page.locator(f'#operations a[href="{hash}"]')).to_have_attribute("aria-current", "")
    watch.assert_quiet(address)


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "keys.json")


async def test_a_key_opens_the_explorer_and_stays_in_memory(page: Page, noobly: Noobly, keys: KeyStore) -> None:
    text = keys.create(name="reader", scopes=["*:read"]).text.reveal()
    async with serving(Application(noobly, KeyGuard(Keyring([keys]), Sessions()))) as address:
        await page.goto(f"{address}/explorer#caching_stats")
        await expect(page.get_by_role("alert")).to_contain_text("Enter an API key")
        await page.get_by_label("API key").fill(text)
        await page.get_by_label("API key").press("Tab")
        await send(page)
        await expect(page.get_by_label("Body")).to_contain_text('"hit_ratio"')
        kept = await page.evaluate("() => JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
        assert text not in kept + page.url + await page.content()
        await choose(page, "caching_clear")
        await send(page)
        await expect(page.get_by_role("alert")).to_contain_text("lacks the scope caching:write")
        await page.close()


def entering(sessions: Sessions) -> tuple[Guard, Endpoint]:
    enter = Endpoint(method="GET", path="/enter", access=Open.EVERYBODY, handler=sessions.enter, name="enter")
    return KeyGuard(Keyring([]), sessions), enter


async def test_a_session_needs_no_key(page: Page, noobly: Noobly) -> None:
    watch = Watch(page)
    sessions = Sessions()
    guard, enter = entering(sessions)
    async with serving(Application(noobly, guard, [enter])) as address:
        await page.goto(f"{address}/enter?ticket={sessions.ticket}")
        await expect(page.locator("tbody tr")).to_have_count(len(SERVICES) + 1)
        await page.get_by_role("link", name="API explorer Read").click()
        await page.get_by_text("caching · default").click()
        await choose(page, "caching_clear")
        await send(page)
        await expect(page.get_by_text("204 No Content")).to_be_visible()
        watch.assert_quiet(address)
        await page.close()
