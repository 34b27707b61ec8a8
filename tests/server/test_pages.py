"""The server's own pages: strict, self-contained, cacheable, and at home under any mount point."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from importlib import resources

import httpx2
import pytest
import pytest_asyncio
from starlette.applications import Starlette
from starlette.routing import Mount

from noobly.app import Noobly
from noobly.server.app import Application
from noobly.server.auth import DevGuard, KeyGuard, Sessions
from noobly.server.keys import Keyring
from noobly.server.pages import PAGES
from noobly.settings import Settings

FILES = {
    file.name: file.read_text(encoding="utf-8")
    for file in resources.files("noobly.server").joinpath("explorer").iterdir()
}
HTML = {name: text for name, text in FILES.items() if name.endswith(".html")}
SCRIPTS = {name: text for name, text in FILES.items() if name.endswith(".js")}
STYLE = "/assets/style.css"


@pytest_asyncio.fixture
async def noobly() -> AsyncIterator[Noobly]:
    async with Noobly.open(settings=Settings()) as opened:
        yield opened


@pytest_asyncio.fixture
async def application(noobly: Noobly) -> Application:
    return Application(noobly, DevGuard())


@pytest_asyncio.fixture
async def client(application: Application) -> AsyncIterator[httpx2.AsyncClient]:
    async with browser(application) as opened:
        yield opened


def browser(application: object, root_path: str = "") -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app=application, root_path=root_path)
    return httpx2.AsyncClient(transport=transport, base_url="http://localhost")


def paths(application: Application) -> list[str]:
    return [one.path for one in application.table.endpoints if one.name.startswith(f"{PAGES}.")]


async def test_every_file_is_served_under_the_strict_policy(
    application: Application, client: httpx2.AsyncClient
) -> None:
    assert {"/", "/explorer", STYLE} <= set(paths(application))
    assert len(paths(application)) == len(FILES)
    for path in paths(application):
        answer = await client.get(path)
        assert answer.status_code == 200, path
        policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
        assert policy == {
            "default-src": "'none'",
            "script-src": "'self'",
            "style-src": "'self'",
            "img-src": "'self' data:",
            "font-src": "'self'",
            "connect-src": "'self'",
            "base-uri": "'none'",
            "form-action": "'self'",
            "frame-ancestors": "'none'",
            "require-trusted-types-for": "'script'",
        }
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_what_pages_and_modules_load_exists(client: httpx2.AsyncClient) -> None:
    named = {f"/{found}" for text in HTML.values() for found in re.findall(r'(?:src|href)="(assets/[^"]+)"', text)}
    named |= {f"/assets/{found}" for text in SCRIPTS.values() for found in re.findall(r'from "\./([^"]+)"', text)}
    assert len(named) >= 8
    for path in named:
        answer = await client.get(path)
        kind = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}[path.rpartition(".")[2]]
        assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, kind)


@pytest.mark.parametrize("name", sorted(FILES))
def test_nothing_comes_from_elsewhere(name: str) -> None:
    found = re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]+[^\s\"']*", FILES[name])
    assert [one for one in found if one != "http://www.w3.org/2000/svg"] == []
    assert not re.search(r"@import|url\(", FILES[name]) or name.endswith(".js")


@pytest.mark.parametrize("name", sorted(HTML))
def test_pages_have_nothing_inline(name: str) -> None:
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", HTML[name])
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", HTML[name], re.DOTALL)
    assert scripts
    assert all("src=" in attributes and not content for attributes, content in scripts)
    assert 'href="/' not in HTML[name]
    assert 'src="/' not in HTML[name]


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_scripts_neither_parse_html_nor_keep_anything(name: str) -> None:
    banned = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(|new Function"
    stored = r"localStorage|sessionStorage|indexedDB|document\.cookie"
    assert not re.search(f'{banned}|{stored}|\\.style\\b|setAttribute\\("on', SCRIPTS[name])


def test_the_pages_are_small() -> None:
    assert sum(len(text.encode()) for text in FILES.values()) < 32 * 1024


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "*"])
async def test_what_the_browser_has_is_not_sent_again(client: httpx2.AsyncClient, form: str) -> None:
    first = await client.get(STYLE)
    assert first.headers["cache-control"] == "no-cache"
    again = await client.get(STYLE, headers={"if-none-match": form.format(first.headers["etag"])})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]


async def test_what_has_changed_is_sent(client: httpx2.AsyncClient) -> None:
    tags = {(await client.get(path)).headers["etag"] for path in ("/", "/explorer", STYLE, "/openapi.json")}
    assert len(tags) == 4
    answer = await client.get(STYLE, headers={"if-none-match": '"other"'})
    assert (answer.status_code, answer.text) == (200, FILES["style.css"])


async def test_head_has_no_body(client: httpx2.AsyncClient) -> None:
    answer = await client.head("/explorer")
    assert (answer.status_code, answer.content) == (200, b"")


async def test_they_work_where_they_are_mounted(application: Application) -> None:
    async with browser(Starlette(routes=[Mount("/tools/noobly", app=application)])) as client:
        for path in ("/", "/explorer", STYLE, "/openapi.json", "/v1"):
            assert (await client.get(f"/tools/noobly{path}")).status_code == 200


@pytest.mark.parametrize(("asked", "meant"), [("/n", "/n/"), ("/n/explorer/", "/n/explorer")])
async def test_a_wrong_slash_is_put_right_since_links_are_relative(
    application: Application, asked: str, meant: str
) -> None:
    async with browser(application, root_path="/n") as client:
        answer = await client.get(asked)
        assert (answer.status_code, answer.headers["location"]) == (307, meant)
        assert (await client.get(meant)).status_code == 200


async def test_files_are_for_everybody_and_the_document_is_not(noobly: Noobly) -> None:
    guarded = Application(noobly, KeyGuard(Keyring([]), Sessions()))
    async with browser(guarded) as client:
        assert {(await client.get(path)).status_code for path in paths(guarded)} == {200}
        for path in ("/openapi.json", "/v1"):
            assert (await client.get(path)).status_code == 401
