"""The command ``noobly``. What a command needs is imported when it runs, so that ``noobly --help`` is quick."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from noobly.cli_bench import bench_app
from noobly.cli_jobs import jobs_app
from noobly.cli_logs import logs_app
from noobly.cli_queues import queues_app
from noobly.cli_reach import Config, Json
from noobly.cli_show import complain, exit_code, show, show_json, show_table, write
from noobly.cli_worker import worker
from noobly.core.errors import InvalidArgument, NooblyError

if TYPE_CHECKING:
    from noobly.server.keys import Key, KeyStore
    from noobly.settings import Settings

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}

DataDir = Annotated[Path | None, Parameter(help="The folder of what the server keeps, such as API keys.")]


def _version() -> str:
    from importlib.metadata import version

    return version("noobly")


app = App(
    name="noobly",
    help="Backend services behind one typed async API.",
    version=_version,
    default_parameter=Parameter(negative=()),
    help_format="plaintext",
)
config_app = App(name="config", help="Look at the settings.")
keys_app = App(name="keys", help="Make, list and revoke API keys.")
app.command(config_app)
app.command(keys_app)
app.command(logs_app)
app.command(queues_app)
app.command(jobs_app)
app.command(bench_app)
app.command(worker)
app.register_install_completion_command(help="Install the completion of commands for this shell.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code: 0, 1 for a failure, 2 for wrong settings or arguments."""
    try:
        code = app(arguments, result_action="return_int_as_exit_code_else_zero")
    except NooblyError as error:
        complain(error)
        return exit_code(error)
    return int(code)


@app.command
def serve(
    *,
    host: Annotated[str | None, Parameter(help="The address to listen on; 127.0.0.1 by default.")] = None,
    port: Annotated[int | None, Parameter(help="The port; 11000 by default.")] = None,
    config: Config = None,
    data_dir: DataDir = None,
    workers: Annotated[int | None, Parameter(help="Processes that serve the port together; 1 by default.")] = None,
    dev: Annotated[bool, Parameter(help="Switch authentication off; on loopback only.")] = False,
) -> None:
    """Serve the HTTP API until SIGTERM or Ctrl-C."""
    from noobly.server.workers import run

    run(_settings(config, host=host, port=port, data_dir=data_dir, workers=workers), dev=dev)


@config_app.command(name="check")
def check_config(*, config: Config = None, json: Json = False) -> int:
    """Check all settings without connecting to anything; the exit code is 2 where one is wrong."""
    from noobly.settings import check

    problems = check(_settings(config))
    if json:
        found = [{"table": one.subject, "code": one.error.code, "message": one.error.message} for one in problems]
        show_json(found)
    for problem in () if json else problems:
        complain(problem.error, f"[{problem.subject}] ")
    if not problems and not json:
        write("The settings are good.")
    return 2 if problems else 0


@config_app.command(name="explain")
def explain_config(*, config: Config = None, json: Json = False) -> None:
    """Show every setting and where it came from; secrets are masked."""
    from noobly.explain import explain

    show(explain(_settings(config)), json=json)


@app.command
def doctor(*, config: Config = None, json: Json = False) -> int:
    """Connect to every configured instance; the exit code is 1 where one is down."""
    import asyncio

    from noobly.doctor import diagnose

    diagnosis = asyncio.run(diagnose(_settings(config)))
    if json:
        show_json(diagnosis)
    else:
        write(f"noobly {diagnosis.noobly}, Python {diagnosis.python}")
        show(diagnosis.instances, json=False)
    return 0 if diagnosis.well else 1


@app.command
def providers(*, json: Json = False) -> None:
    """List the providers of all services: what is installed, and what each can do."""
    from noobly.offers import offers

    show(offers(), json=json)


@keys_app.command(name="create")
def create_key(
    *,
    name: Annotated[str, Parameter(help="What the key is for.")],
    scope: Annotated[list[str], Parameter(help="What it may do, such as caching:read or *; may be repeated.")],
    expires: Annotated[str | None, Parameter(help="How long it is good: 12h, 90d, 4w; without, for ever.")] = None,
    config: Config = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Make an API key. It is printed once and cannot be shown again."""
    _check_services(scope)
    issued = _store(config, data_dir).create(name, scope, lifetime=_lifetime(expires))
    if json:
        show_json({**_row(issued.key), "key": issued.text.reveal()})
        return
    write(issued.text.reveal())
    sys.stderr.write(f"Key {issued.key.id} for {name}. Keep it: it is shown only now.\n")


@keys_app.command(name="list")
def list_keys(*, config: Config = None, data_dir: DataDir = None, json: Json = False) -> None:
    """List the API keys of the data folder, without their secrets."""
    rows = [_row(key) for key in _store(config, data_dir).list()]
    if json:
        show_json(rows)
    else:
        show_table(["id", "name", "scopes", "created", "expires", "state"], [[*row.values()] for row in rows])


@keys_app.command(name="revoke")
def revoke_key(
    id: Annotated[str, Parameter(help="The key's id; `noobly keys list` shows it.")],
    /,
    *,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Revoke an API key at once, also on a server that runs."""
    key = _store(config, data_dir).revoke(id)
    write(f"Revoked {key.id} ({key.name}).")


def _settings(config: Path | None, **server: str | Path | int | None) -> Settings:
    from noobly.settings import Settings

    changes = {name: str(value) if isinstance(value, Path) else value for name, value in server.items()}
    return Settings.read(config).with_server(**changes)


def _store(config: Path | None, data_dir: Path | None) -> KeyStore:
    from noobly.server.keys import FILE, KeyStore

    return KeyStore(Path(_settings(config, data_dir=data_dir).server.data_dir) / FILE)


def _check_services(scopes: Sequence[str]) -> None:
    from noobly.services import SERVICES

    known = ("*", "server", *SERVICES)
    for scope in scopes:
        if scope.partition(":")[0] not in known:
            raise InvalidArgument(f"the scope {scope!r} is of no service; there are {', '.join(known)}")


def _lifetime(text: str | None) -> float | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if found is None:
        raise InvalidArgument(f"--expires takes a number and s, m, h, d or w, such as 90d, not {text!r}")
    return float(int(found[1]) * _UNITS[found[2]])


def _row(key: Key) -> dict[str, object]:
    expired = key.expires is not None and key.expires <= time.time()
    return {
        "id": key.id,
        "name": key.name,
        "scopes": key.scopes,
        "created": _moment(key.created),
        "expires": None if key.expires is None else _moment(key.expires),
        "state": "expired" if expired else "good",
    }


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
