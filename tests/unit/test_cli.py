"""The command line: what each command prints, how it fails, and how quick it is to help."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from noobly import cli, doctor, offers
from noobly.core.errors import Unavailable
from noobly.core.registry import Provider
from noobly.server.keys import KeyStore
from noobly.services import SERVICES
from noobly.settings import Settings
from noobly.testing import free_port

SECRET = "hunter2-hunter2"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for variable in ("NOOBLY_CONFIG", "NOOBLY_CACHING__URL", "NOOBLY_SERVER__DATA_DIR"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


@pytest.fixture
def run(capsys):
    """Run a command in this process; return the exit code and what it printed."""

    def command(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(arguments)
        return code, *capsys.readouterr()

    return command


def configure(folder: Path, text: str) -> None:
    (folder / "noobly.toml").write_text(text, encoding="utf-8")


def examined(out: str, service: str) -> list[dict]:
    """Return what ``doctor --json`` printed about a service's instances."""
    return [found for found in json.loads(out)["instances"] if found["service"] == service]


class TestConfigCheck:
    def test_good_settings(self, run):
        assert run("config", "check") == (0, "The settings are good.\n", "")
        assert run("config", "check", "--json") == (0, "[]\n", "")

    def test_every_problem_is_one_line(self, run, folder):
        configure(folder, "[caching]\nttll = 1\n[caching.instances.a]\nurl = 'nobody://'")
        code, out, err = run("config", "check")
        first, second = err.splitlines()
        assert (code, out) == (2, "")
        assert first == "noobly: [caching] settings: the memory provider has no setting 'ttll'; did you mean ttl?"
        assert second.startswith("noobly: [caching.instances.a] settings: no caching provider has the scheme 'nobody'")

    def test_as_json(self, run, folder):
        configure(folder, "[caching]\nttll = 1")
        code, out, err = run("config", "check", "--json")
        assert (code, err) == (2, "")
        assert [(found["table"], found["code"]) for found in json.loads(out)] == [("caching", "config_error")]

    def test_a_file_that_cannot_be_read(self, run, folder):
        configure(folder, "[caching\n")
        code, out, err = run("config", "check")
        assert (code, out) == (2, "")
        assert err.startswith("noobly: settings: the settings file noobly.toml is not TOML: ")
        assert err.count("\n") == 1

    def test_another_file(self, run, folder):
        (folder / "other.toml").write_text("[cachng]")
        code, _, err = run("config", "check", "--config", "other.toml")
        assert code == 2
        assert "did you mean caching?" in err


class TestConfigExplain:
    def test_each_value_with_its_origin(self, run, folder, monkeypatch):
        configure(folder, f"[caching]\nurl = 'redis://localhost/0'\npassword = '{SECRET}'")
        monkeypatch.setenv("NOOBLY_SERVER__PORT", "12000")
        code, out, err = run("config", "explain")
        lines = {line.split()[0]: line.split(None, 2)[1:] for line in out.splitlines()}
        assert (code, err) == (0, "")
        assert lines["NAME"] == ["VALUE", "ORIGIN"]
        assert lines["server.port"] == ["12000", "environment NOOBLY_SERVER__PORT"]
        assert lines["caching.password"] == ["***", "noobly.toml [caching]"]
        assert lines["caching.timeout"] == ["5.0", "default"]
        assert SECRET not in out

    def test_as_json(self, run):
        code, out, _ = run("config", "explain", "--json")
        rows = {row["name"]: row for row in json.loads(out)}
        assert code == 0
        assert rows["caching.url"] == {"name": "caching.url", "value": "memory://", "origin": "default"}


class TestDoctor:
    def test_all_is_well(self, run):
        code, out, err = run("doctor")
        versions, heads, *rows = out.splitlines()
        assert (code, err) == (0, "")
        assert versions.startswith("noobly ")
        assert "Python 3." in versions
        assert heads.split() == ["SERVICE", "INSTANCE", "PROVIDER", "STATE", "MILLISECONDS", "PACKAGES", "ERROR"]
        assert [row.split()[:4] for row in rows] == [[service, "default", "memory", "ok"] for service in SERVICES]

    def test_one_that_is_down_does_not_hide_the_others(self, run, folder):
        url = f"redis://127.0.0.1:{free_port()}/0"
        configure(folder, f"[caching]\nurl = '{url}'\n[caching.instances.a]\nurl = 'memory://'")
        code, out, _ = run("doctor", "--json")
        down, well = examined(out, "caching")
        assert code == 1
        assert (down["instance"], down["provider"], down["state"], down["milliseconds"]) == (
            "default",
            "redis",
            "down",
            None,
        )
        assert down["error"].startswith("unavailable: ")
        assert [package.split()[0] for package in down["packages"]] == ["hiredis", "redis"]
        assert (well["instance"], well["state"], well["error"]) == ("a", "ok", None)
        assert well["milliseconds"] > 0
        assert [found["state"] for service in SERVICES if service != "caching" for found in examined(out, service)] == [
            "ok"
        ] * (len(SERVICES) - 1)

    def test_a_wrong_setting_is_told_too(self, run, folder):
        configure(folder, "[caching]\nttll = 1")
        code, out, _ = run("doctor", "--json")
        assert code == 1
        (found,) = examined(out, "caching")
        assert found["error"].startswith("config_error: ")

    async def test_opening_that_takes_too_long_is_down(self, monkeypatch):
        async def enter(*_):
            await asyncio.Event().wait()

        monkeypatch.setattr(doctor, "enter", enter)
        monkeypatch.setattr(doctor, "_WITHIN", 0.01)
        found = await doctor.diagnose(Settings())
        assert not found.well
        assert found.instances[0].error == "deadline_exceeded: not open within 0.01 s"

    def test_a_package_that_is_not_there_is_named(self):
        assert doctor._version("no-such-package-noobly") == "no-such-package-noobly is missing"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestProgress:
    @pytest.fixture
    def slow(self, monkeypatch):
        """Let opening take a little longer than progress stays hidden."""
        enter, wait_really = doctor.enter, asyncio.wait
        hidden = asyncio.Event()

        async def late(*given):
            await hidden.wait()
            return await enter(*given)

        async def wait(work, **bounds):
            if bounds != {"timeout": doctor._QUIET}:  # a service that waits for its own tasks
                return await wait_really(work, **bounds)
            hidden.set()
            return set(), set(work)

        monkeypatch.setattr(doctor, "enter", late)
        monkeypatch.setattr(doctor.asyncio, "wait", wait)

    def test_it_is_shown_on_a_terminal(self, slow, monkeypatch, run):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        code, out, _ = run("doctor")
        assert code == 0
        assert "connecting" in terminal.getvalue()
        assert "connecting" not in out

    def test_it_is_not_shown_elsewhere(self, slow, run):
        code, _, err = run("doctor")
        assert (code, err) == (0, "")


class TestProviders:
    def test_all_schemes_with_what_they_can_do(self, run):
        code, out, _ = run("providers")
        rows = [line.split() for line in out.splitlines()[1:]]
        schemes = [[name, listed.scheme] for name in SERVICES for listed in SERVICES[name].registry.providers()]
        assert code == 0
        assert [row[:2] for row in rows] == schemes
        assert ["caching", "memory", "yes", "-", "list"] in [row[:5] for row in rows]

    def test_as_json(self, run):
        listed = json.loads(run("providers", "--json")[1])
        found = {row["scheme"]: row for row in listed if row["service"] == "caching"}
        assert found["memory"]["capabilities"] == ["list"]
        assert found["http"]["capabilities"] is None
        assert found["redis"]["installed"] is True

    def test_one_that_cannot_be_loaded_is_listed_too(self, run, monkeypatch, folder):
        (folder / "broken_provider.py").write_text("raise AttributeError('no such thing')")
        monkeypatch.syspath_prepend(folder)
        table = {
            "absent": Provider("no_such_package.module:Class", "some-extra", "needs a package"),
            "own": Provider("no_such_package.module:Class"),
            "broken": Provider("broken_provider:Class"),
            "wrong": Provider("noobly.caching.options:Share"),
        }
        monkeypatch.setattr(SERVICES["caching"].registry, "_table", table)
        found = {offer.scheme: offer for offer in offers.offers() if offer.scheme in table}
        assert [offer.installed for offer in found.values()] == [False] * 4
        assert found["absent"].install == "pip install 'noobly[some-extra]'"
        assert "cannot be imported" in found["own"].install
        assert found["broken"].install == "broken_provider:Class fails: AttributeError: no such thing"
        assert "not a class" in found["wrong"].install
        assert found["own"].summary == "no_such_package.module:Class"
        assert run("providers")[0] == 0

    def test_nothing_to_show_prints_nothing(self, run, monkeypatch):
        monkeypatch.setattr(offers, "SERVICES", {})
        assert run("providers") == (0, "", "")


class TestKeys:
    def test_create_list_and_revoke(self, run, folder):
        code, out, err = run("keys", "create", "--name", "web", "--scope", "caching:read", "--scope", "*:read")
        text = out.strip()
        id = text.split("_")[1]
        assert code == 0
        assert err == f"Key {id} for web. Keep it: it is shown only now.\n"
        found = KeyStore(folder / ".noobly" / "keys.json").authenticate(text)
        assert found.scopes == {"caching:read", "*:read"}

        code, out, err = run("keys", "list")
        heads, row = out.splitlines()
        assert (code, err) == (0, "")
        assert heads.split() == ["ID", "NAME", "SCOPES", "CREATED", "EXPIRES", "STATE"]
        assert row.split()[:4] == [id, "web", "*:read,", "caching:read"]
        assert row.split()[-2:] == ["-", "good"]
        assert text.split("_")[2] not in out

        assert run("keys", "revoke", id) == (0, f"Revoked {id} (web).\n", "")
        assert run("keys", "revoke", id)[0] == 1
        assert KeyStore(folder / ".noobly" / "keys.json").authenticate(text) is None

    def test_as_json(self, run):
        code, out, err = run("keys", "create", "--name", "web", "--scope", "*", "--expires", "90d", "--json")
        made = json.loads(out)
        assert (code, err) == (0, "")
        assert made["key"].startswith(f"noobly_{made['id']}_")
        (listed,) = json.loads(run("keys", "list", "--json")[1])
        assert listed == {name: value for name, value in made.items() if name != "key"}
        assert listed["state"] == "good"

    @pytest.mark.parametrize(
        ("text", "seconds"), [("90s", 90), ("30m", 1800), ("12h", 43200), ("90d", 7776000), ("4w", 2419200)]
    )
    def test_how_long_it_is_good(self, run, folder, text, seconds):
        run("keys", "create", "--name", "web", "--scope", "*", "--expires", text)
        (key,) = KeyStore(folder / ".noobly" / "keys.json").list()
        assert key.expires - key.created == seconds

    def test_an_expired_one_is_listed_as_such(self, run, folder, monkeypatch):
        run("keys", "create", "--name", "web", "--scope", "*", "--expires", "1s")
        (key,) = KeyStore(folder / ".noobly" / "keys.json").list()
        monkeypatch.setattr(cli.time, "time", lambda: key.expires)
        assert json.loads(run("keys", "list", "--json")[1])[0]["state"] == "expired"

    def test_the_data_folder_comes_from_option_file_or_variable(self, run, folder, monkeypatch):
        run("keys", "create", "--name", "a", "--scope", "*", "--data-dir", "here")
        configure(folder, "[server]\ndata_dir = 'there'")
        run("keys", "create", "--name", "b", "--scope", "*")
        monkeypatch.setenv("NOOBLY_SERVER__DATA_DIR", "elsewhere")
        run("keys", "create", "--name", "c", "--scope", "*")
        for place, name in (("here", "a"), ("there", "b"), ("elsewhere", "c")):
            assert [key.name for key in KeyStore(folder / place / "keys.json").list()] == [name]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--scope", "cachng:read"], f"is of no service; there are {', '.join(('*', 'server', *SERVICES))}"),
            (["--scope", "caching:all"], "is not <service>:read"),
            (["--scope", "*", "--expires", "soon"], "--expires takes a number and s, m, h, d or w"),
            (["--scope", "*", "--expires", "0d"], "lifetime must be more than 0"),
        ],
    )
    def test_what_is_wrong_is_one_line_and_code_2(self, run, folder, arguments, message):
        code, out, err = run("keys", "create", "--name", "web", *arguments)
        assert (code, out) == (2, "")
        assert message in err
        assert err.count("\n") == 1
        assert not (folder / ".noobly").exists()


class TestServe:
    @pytest.fixture
    def served(self, monkeypatch):
        calls = []
        monkeypatch.setattr("noobly.server.serve.run", lambda settings, *, dev: calls.append((settings.server, dev)))
        return calls

    def test_settings_reach_the_server(self, run, served, folder):
        configure(folder, "[server]\nport = 1\nshutdown_grace = 5")
        assert run("serve") == (0, "", "")
        assert run("serve", "--host", "::1", "--port", "2", "--data-dir", "there", "--dev") == (0, "", "")
        (plain, dev), (changed, also_dev) = served
        assert (plain.host, plain.port, plain.data_dir, plain.shutdown_grace, dev) == (
            "127.0.0.1",
            1,
            ".noobly",
            5,
            False,
        )
        assert (changed.host, changed.port, changed.data_dir, also_dev) == ("::1", 2, "there", True)

    def test_a_wrong_port(self, run, served):
        code, _, err = run("serve", "--port", "70000")
        assert (code, served) == (2, [])
        assert "65535" in err

    def test_a_failure_is_one_line_and_code_1(self, run, monkeypatch):
        def fails(settings, *, dev):
            error = Unavailable("redis does not answer")
            error.add_note("in the settings of [caching]")
            raise error

        monkeypatch.setattr("noobly.server.serve.run", fails)
        assert run("serve") == (1, "", "noobly: unavailable: redis does not answer (in the settings of [caching])\n")


class TestProgram:
    def test_version(self, run):
        code, out, _ = run("--version")
        assert code == 0
        assert out.strip().count(".") == 2

    def test_an_unknown_command(self, run, capsys):
        with pytest.raises(SystemExit) as caught:
            cli.main(["surve"])
        assert caught.value.code == 2
        assert "surve" in "".join(capsys.readouterr())

    def test_help_as_a_module_loads_nothing_heavy(self, folder):
        report = "import sys; sys.argv[1:] = ['--help']; import noobly.cli; code = noobly.cli.main()"
        check = f"{report}; print([name for name in {HEAVY} if name in sys.modules]); sys.exit(code)"
        done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0
        assert done.stdout.endswith("[]\n")
        assert "serve" in done.stdout

    def test_python_m_noobly(self):
        done = subprocess.run(
            [sys.executable, "-m", "noobly", "config", "check", "--config", "missing.toml"],
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 2
        assert (
            done.stderr
            == "noobly: settings: the settings file missing.toml cannot be read: No such file or directory\n"
        )

    def test_completion_is_installed(self, folder, monkeypatch, run):
        monkeypatch.setenv("HOME", str(folder))
        assert run("--install-completion", "--shell", "bash")[0] == 0
        assert any("noobly" in path.name for path in folder.rglob("*") if path.is_file())


HEAVY = ["noobly.app", "noobly.caching", "noobly.server.app", "granian", "starlette", "httpx2", "redis", "structlog"]
