"""Write the generated parts of docs/ from the code, or with --check fail where they are out of date.

``providers.md`` is generated as a whole. In other pages, what stands between ``<!-- generated: NAME ARGUMENT -->`` and
``<!-- end -->`` is: ``options module:Class``, ``routes module:Class`` and ``errors``.
"""

from __future__ import annotations

import difflib
import importlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from docstring_parser import DocstringStyle, parse

from noobly.core import errors
from noobly.core.capability import names
from noobly.core.config import Config
from noobly.core.errors import NooblyError
from noobly.core.operation import Driver, capabilities
from noobly.core.public import Param, Route, routes
from noobly.core.registry import Listed
from noobly.core.scope import Environment
from noobly.layers.opening import Request, lacks, make, options_fields, split
from noobly.services import SERVICES, Service

DOCS = Path(__file__).parent
_GENERATED = re.compile(r"(<!-- generated: (\w+)(?: ([\w.:]+))? -->\n).*?(<!-- end -->)", re.DOTALL)
_MEBIBYTE = 1024 * 1024


class Tried(NamedTuple):
    """What a scheme is tested against; empty where it could not be tried, which makes it beta."""

    against: str
    url: str


_CACHING = {
    "memory": Tried("the suites", "memory://"),
    "file": Tried("the suites, on a local disk", "file:///var/cache/app"),
    "redis": Tried("the suites, on redis-server", "redis://localhost"),
    "rediss": Tried("redis-server with TLS", "rediss://localhost"),
    "redis+cluster": Tried("three redis-servers as a cluster", "redis+cluster://localhost"),
    "rediss+cluster": Tried("", "rediss+cluster://localhost"),
    "redis+sentinel": Tried("redis-servers behind a sentinel", "redis+sentinel://localhost/mymaster/0"),
    "rediss+sentinel": Tried("", "rediss+sentinel://localhost/mymaster/0"),
    "valkey": Tried("", "valkey://localhost"),
    "valkeys": Tried("", "valkeys://localhost"),
    "memcached": Tried("the suites, on memcached", "memcached://localhost"),
    "tiered+redis": Tried("the suites, on redis-server", "tiered+redis://localhost"),
    "tiered+rediss": Tried("", "tiered+rediss://localhost"),
    "tiered+redis+sentinel": Tried("", "tiered+redis+sentinel://localhost/mymaster/0"),
    "tiered+valkey": Tried("", "tiered+valkey://localhost"),
    "tiered+valkeys": Tried("", "tiered+valkeys://localhost"),
    "tiered+memcached": Tried("", "tiered+memcached://localhost"),
    "tiered+file": Tried("", "tiered+file:///var/cache/app"),
    "remote": Tried("", "remote://localhost"),
    "api": Tried("", "api://localhost"),
    "http": Tried("`noobly serve`", "http://localhost"),
    "https": Tried("", "https://localhost"),
}
_MEASURING = {
    "memory": Tried("the suite", "memory://"),
    "sqlite": Tried("the suite, on a local disk", "sqlite:///var/lib/app/metrics.db"),
    "remote": Tried("", "remote://localhost"),
    "api": Tried("", "api://localhost"),
    "http": Tried("the suite, on `noobly serve`", "http://localhost"),
    "https": Tried("", "https://localhost"),
}
_LOGGING = {
    "memory": Tried("the suites", "memory://"),
    "file": Tried("the suites, on a local disk", "file:///var/log/app.jsonl"),
    "remote": Tried("", "remote://localhost"),
    "api": Tried("", "api://localhost"),
    "http": Tried("the suite, on `noobly serve`", "http://localhost"),
    "https": Tried("", "https://localhost"),
}
_QUEUEING = {
    "memory": Tried("the suites", "memory://"),
    "sqlite": Tried("the suites, on a local disk", "sqlite:///var/lib/app/queues.db"),
    "redis": Tried("the suites, on redis-server", "redis://localhost"),
    "rediss": Tried("redis-server with TLS", "rediss://localhost"),
    "redis+cluster": Tried("three redis-servers as a cluster", "redis+cluster://localhost"),
    "rediss+cluster": Tried("", "rediss+cluster://localhost"),
    "redis+sentinel": Tried("redis-servers behind a sentinel", "redis+sentinel://localhost/mymaster/0"),
    "rediss+sentinel": Tried("", "rediss+sentinel://localhost/mymaster/0"),
    "valkey": Tried("", "valkey://localhost"),
    "valkeys": Tried("", "valkeys://localhost"),
    "sqs": Tried("*beta*: emulators only; the suite, on moto and MiniStack, standard and FIFO", "sqs://eu-west-1"),
    "rabbitmq": Tried("the suite, on rabbitmq-server", "rabbitmq://localhost"),
    "rabbitmqs": Tried("rabbitmq-server with TLS", "rabbitmqs://localhost"),
    "amqp": Tried("rabbitmq-server", "amqp://localhost"),
    "amqps": Tried("", "amqps://localhost"),
    "remote": Tried("", "remote://localhost"),
    "api": Tried("", "api://localhost"),
    "http": Tried("the suite, on `noobly serve`", "http://localhost"),
    "https": Tried("", "https://localhost"),
}
_WORKING = {
    "memory": Tried("the suite", "memory://"),
    "sqlite": Tried("the suite, on a local disk", "sqlite:///var/lib/app/jobs.db"),
    "bullmq": Tried("the suite, on redis-server; with BullMQ itself, on Node.js", "bullmq://localhost"),
    "bullmqs": Tried("", "bullmqs://localhost"),
    "bullmq+sentinel": Tried("", "bullmq+sentinel://localhost/mymaster/0"),
    "bullmqs+sentinel": Tried("", "bullmqs+sentinel://localhost/mymaster/0"),
    "remote": Tried("", "remote://localhost"),
    "api": Tried("", "api://localhost"),
    "http": Tried("the suite, on `noobly serve`", "http://localhost"),
    "https": Tried("", "https://localhost"),
}
_TRIED = {"caching": _CACHING, "logging": _LOGGING, "measuring": _MEASURING, "queueing": _QUEUEING, "working": _WORKING}

_HEAD = """# Providers

This page is generated from the code by `scripts/docs`. `noobly providers` prints what is installed on a machine, with
the providers of other packages.

"The suites" are the two conformance suites that Noobly ships. What names only a server has tests of its own there,
for what differs from its relatives. A scheme marked *beta* shares the code of one that is tested, but has not been
tried itself. One that is tested against emulators only has never met the service that it is made for; such a one is
*beta* too. The largest value is the provider's own limit; a cache's option `value_bytes`, 64 MiB unless set, holds
besides.
"""


def main(arguments: Sequence[str]) -> int:
    """Write all pages, or compare them; return the exit code."""
    pages = {DOCS / "providers.md": providers()}
    for page in sorted(DOCS.glob("**/*.md")):
        if page not in pages:
            content = page.read_text(encoding="utf-8")
            pages[page] = _GENERATED.sub(_section, content)
    if "--check" in arguments:
        return max([_compare(page, content) for page, content in pages.items()])
    for page, content in pages.items():
        page.write_text(content, encoding="utf-8")
    return 0


def _compare(page: Path, wanted: str) -> int:
    found = page.read_text(encoding="utf-8") if page.exists() else ""
    lines = difflib.unified_diff(found.splitlines(), wanted.splitlines(), str(page), "generated", lineterm="", n=0)
    changes = "\n".join(lines)
    if changes:
        print(f"{changes}\n{page.name} is out of date: run scripts/docs", file=sys.stderr)
    return 1 if changes else 0


def _section(match: re.Match[str]) -> str:
    makers: dict[str, Callable[[str], Iterator[str]]] = {"options": options, "routes": http, "errors": failures}
    return f"{match[1]}\n{_lines(makers[match[2]](match[3] or ''))}\n{match[4]}"


def _lines(lines: Iterator[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _table(heads: Sequence[str], rows: Iterator[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |"


def _load(target: str) -> type:
    module, _, name = target.partition(":")
    loaded: type = getattr(importlib.import_module(module), name)
    return loaded


def _told(text: str) -> str:
    """Return a docstring's text on one line, as Markdown."""
    return re.sub(r"\s+", " ", text).replace("``", "`").strip()


def options(target: str) -> Iterator[str]:
    """Yield the table of a configuration's fields."""
    config: type[Config] = _load(target)
    told: dict[str, str] = {}
    for base in reversed(config.__mro__):  # A class tells of its own options only.
        found = parse(base.__doc__ or "", DocstringStyle.GOOGLE).params
        told |= {one.arg_name: _told(one.description or "") for one in found}
    fields = msgspec.structs.fields(config)
    missing = [field.name for field in fields if not told.get(field.name)]
    if missing:
        raise LookupError(f"the docstring of {target} says nothing of {', '.join(missing)}")
    by_url = config.url_parts.values()
    rows = ([f"`{field.name}`", _default(field, in_url=field.name in by_url), told[field.name]] for field in fields)
    yield from _table(["option", "default", "meaning"], rows)


def _default(field: msgspec.structs.FieldInfo, *, in_url: bool) -> str:
    if in_url:
        return "from the URL"
    if field.required:
        return "required"
    value = msgspec.to_builtins(field.default)
    if value is None or value == "":
        return "none"
    return f"{value:,}" if isinstance(value, int) and value >= 65_536 else f"`{value}`"


def http(target: str) -> Iterator[str]:
    """Yield the table of a portable type's routes."""
    yield from _table(["request", "permission", "Python"], (_route(route) for route in routes(_load(target))))


def _route(route: Route) -> list[str]:
    in_body = route.verb == "POST" and route.body is None
    named = [_argument(param) for param in route.params if param.name != route.body]
    carried = (
        f"JSON: {', '.join(named)}" if in_body and named else "".join(f"&{name}" for name in named).replace("&", "?", 1)
    )
    request = f"`{route.verb} {route.path}" + (f"` {carried}" if in_body and named else f"{carried}`")
    body = f", body: `{route.body}`" if route.body else ""
    return [request + body, f"`{route.permission}`", f"`{route.name}`"]


def _argument(param: Param) -> str:
    return param.name if param.required else f"[{param.name}]"


def failures(_: str) -> Iterator[str]:
    """Yield the table of errors."""
    tree = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, NooblyError)]
    kinds = [kind for kind in tree if kind is not NooblyError]
    rows = (
        [
            f"`{kind.__name__}`",
            f"`{kind.code}`",
            str(kind.status),
            "yes" if kind.temporary else "",
            _told(kind.__doc__ or ""),
        ]
        for kind in kinds
    )
    yield from _table(["class", "code", "HTTP", "temporary", "meaning"], rows)


def providers() -> str:
    """Return the page of providers."""
    parts = [_HEAD]
    for name, service in SERVICES.items():
        listed = [one for one in service.registry.providers() if one.builtin]
        parts.append(f"\n## {name}\n\n{_lines(_schemes(service, listed))}")
        targets = dict.fromkeys(one.provider.target for one in listed)
        parts += [_notes(target, [one for one in listed if one.provider.target == target]) for target in targets]
    return "".join(parts)


def _schemes(service: Service, listed: Sequence[Listed]) -> Iterator[str]:
    tried = _TRIED[service.registry.service]
    if {one.scheme for one in listed} != tried.keys():
        raise LookupError(f"{__file__} must say what these are tested against: {[one.scheme for one in listed]}")
    heads = ["scheme", "what", "install", "beyond the core", "largest value", "tested against"]
    yield from _table(heads, (_scheme(service, one, tried[one.scheme]) for one in listed))


def _scheme(service: Service, one: Listed, tried: Tried) -> list[str]:
    extra = one.provider.extra
    parts = split(Request(url=tried.url), service.options)
    driver = make(service.registry, parts, options_fields(parts), Environment(), "default")
    remote = hasattr(driver, "call")
    able = capabilities(service.protocol, driver) - lacks(driver)
    return [
        f"`{one.scheme}`",
        one.provider.summary,
        f"`noobly[{extra}]`" if extra else "included",
        "as its server" if remote else ", ".join(names(able)) or "nothing",
        "as its server" if remote else _size(driver),
        tried.against or "*beta*",
    ]


def _size(driver: Driver) -> str:
    size = driver.limits.value_bytes
    return f"{size // _MEBIBYTE} MiB" if size >= _MEBIBYTE else f"{size:,} bytes"


def _notes(target: str, listed: Sequence[Listed]) -> str:
    provider = _load(target)
    doc = parse(provider.__doc__ or "", DocstringStyle.GOOGLE)
    told = " ".join(filter(None, [doc.short_description, doc.long_description]))
    schemes = ", ".join(f"`{one.scheme}`" for one in listed)
    head = f"\n### {provider.__name__}\n\n{schemes}: {listed[0].provider.summary}.\n\n"
    config = _own_options(provider)
    table = _lines(options(f"{config.__module__}:{config.__name__}"))
    return f"{head}{_told(told)}\n\n{table}"


def _own_options(provider: type) -> type:
    """Return the configuration whose fields users set; the tiered provider's own holds another one."""
    config: type = provider.Config  # type: ignore[attr-defined]  # as every provider has
    fields = {field.name: field.type for field in msgspec.structs.fields(config)}
    memory = fields.get("memory")
    return memory if isinstance(memory, type) else config


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
