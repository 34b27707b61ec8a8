"""Settings: file and environment, what is refused, where values came from, and what is masked."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from noobly.app import Noobly
from noobly.caching.options import CacheOptions
from noobly.core.config import Config
from noobly.core.errors import ConfigError, NotFound
from noobly.core.scope import Environment, Policy
from noobly.explain import MASK, explain, mask_url
from noobly.services import SERVICES
from noobly.settings import Instance, Server, Settings, check
from noobly.testing import FakeClock

SECRET = "hunter2-hunter2"


def file(folder: Path, text: str) -> Path:
    path = folder / "noobly.toml"
    path.write_text(text, encoding="utf-8")
    return path


def read(folder: Path, text: str, **environ: str) -> Settings:
    return Settings.read(file(folder, text), environ)


def rows(settings: Settings) -> dict[str, tuple[object, str]]:
    return {row.name: (row.value, row.origin) for row in explain(settings)}


class TestReading:
    def test_nothing_configured_means_the_embedded_defaults(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        settings = Settings.read(environ={})
        assert settings.server == Server()
        assert settings.origins == {}
        for name in SERVICES:
            assert settings.instances(name) == {"default": Instance(url="memory://")}

    def test_the_file_in_the_working_folder_is_read(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        file(tmp_path, "[server]\nport = 12000")
        assert Settings.read(environ={}).server.port == 12000

    def test_a_variable_names_the_file_and_an_argument_wins_over_it(self, tmp_path):
        named, given = tmp_path / "named.toml", tmp_path / "given.toml"
        named.write_text("[server]\nport = 1")
        given.write_text("[server]\nport = 2")
        assert Settings.read(environ={"NOOBLY_CONFIG": str(named)}).server.port == 1
        assert Settings.read(given, {"NOOBLY_CONFIG": str(named)}).server.port == 2
        assert Settings.read(str(given), {}).server.port == 2

    def test_named_instances_inherit_nothing(self, tmp_path):
        settings = read(
            tmp_path,
            """
            [caching]
            url = "redis://localhost/0"
            ttl = 60
            [caching.instances.sessions]
            url = "memory://?max_entries=5"
            """,
        )
        found = settings.instances("caching")
        assert found["default"] == Instance(url="redis://localhost/0", options={"ttl": 60})
        assert found["sessions"] == Instance(url="memory://?max_entries=5")
        assert list(found) == ["default", "sessions"]

    def test_the_default_instance_keeps_its_embedded_url_with_options_alone(self, tmp_path):
        found = read(tmp_path, "[caching]\nttl = 60").instances("caching")
        assert found["default"] == Instance(url="memory://", options={"ttl": 60})

    def test_settings_may_be_made_in_code(self):
        settings = Settings(services={"caching": {"sessions": Instance(url="memory://")}})
        assert list(settings.instances("caching")) == ["default", "sessions"]


class TestEnvironmentVariables:
    def test_they_win_over_the_file(self, tmp_path):
        settings = read(
            tmp_path,
            '[caching]\nurl = "redis://file/0"\nttl = 1\n[server]\nport = 1\nhost = "::1"',
            NOOBLY_CACHING__URL="redis://environment/0",
            NOOBLY_SERVER__PORT="12345",
        )
        assert settings.instances("caching")["default"] == Instance(url="redis://environment/0", options={"ttl": 1})
        assert settings.server.port == 12345
        assert settings.server.host == "::1"

    def test_they_make_named_instances(self):
        environ = {
            "NOOBLY_CACHING__INSTANCES__SESSIONS__URL": "memory://",
            "NOOBLY_CACHING__INSTANCES__SESSIONS__TTL": "5",
        }
        settings = Settings.read(environ=environ)
        assert settings.instances("caching")["sessions"] == Instance(url="memory://", options={"ttl": "5"})

    def test_they_find_an_instance_whose_name_has_a_hyphen(self, tmp_path):
        settings = read(
            tmp_path,
            '[caching.instances.web-sessions]\nurl = "memory://"',
            NOOBLY_CACHING__INSTANCES__WEB_SESSIONS__TTL="5",
        )
        assert settings.instances("caching")["web-sessions"].options == {"ttl": "5"}
        assert list(settings.instances("caching")) == ["default", "web-sessions"]

    @pytest.mark.parametrize(
        ("variable", "text"),
        [
            ("NOOBLY_API_KEYS", "a-key"),
            ("NOOBLY_CONFIG", ""),
            ("NOOBLY_REQUIRE_SERVERS", "all"),
            ("NOOBLY_TEST_REDIS_URL", "redis://localhost"),
            ("NOOBLY_TEST__X", "1"),
            ("NOOBLY_HOME", "somebody else's"),
            ("NOOBLY_SERVICE_HOST", "10.0.0.1"),
            ("NOOBLY_PORT", "tcp://10.0.0.1:80"),
            ("NOOBLY_CACHING_SERVICE_HOST", "10.0.0.1"),
            ("NOOBLY_CACHING_SERVICE_PORT_HTTP", "80"),
            ("NOOBLY_CACHING_PORT", "tcp://10.0.0.1:80"),
            ("NOOBLY_CACHING_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("OTHER__THING", "1"),
        ],
    )
    def test_others_are_left_alone(self, variable, text, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert Settings.read(environ={variable: text}) == Settings.read(environ={})

    @pytest.mark.parametrize(
        ("variable", "hint"),
        [
            ("NOOBLY_CACHNG__URL", "did you mean NOOBLY_CACHING__URL"),
            ("NOOBLY_SERVER__PROT", "did you mean port"),
            ("NOOBLY_CACHING_URL", "did you mean NOOBLY_CACHING__URL"),
            ("NOOBLY_SERVER_PORT", "did you mean NOOBLY_SERVER__PORT"),
            ("NOOBLY_CACHING__SESSIONS__URL", "did you mean NOOBLY_CACHING__URL"),
            ("NOOBLY_SERVER__INSTANCES__X__PORT", "did you mean NOOBLY_SERVER__PORT"),
            ("NOOBLY_CACHING__INSTANCES__DEFAULT__URL", r"is the table \[caching\] itself"),
            ("NOOBLY_CACHING__INSTANCES__A.B__URL", "must be named with"),
        ],
    )
    def test_a_misspelt_one_is_refused_with_a_suggestion(self, variable, hint):
        with pytest.raises(ConfigError, match=hint):
            Settings.read(environ={variable: "8000"})


class TestRefusals:
    @pytest.mark.parametrize(
        ("text", "hint"),
        [
            ("[cachng]", "no setting 'cachng'; did you mean caching"),
            ("[server]\nprot = 1", r"\[server\] has no setting 'prot'; did you mean port"),
            ("[server]\nport = 70000", "<= 65535"),
            ("[server]\nport = 'x'", "port"),
            ("[server]\nidempotency_ttl = 0", "idempotency_ttl"),
            ("[server]\nmax_body_bytes = -1", "max_body_bytes"),
            ("[server.instances.x]\nport = 1", "has no setting 'instances'"),
            ("caching = 'redis://x'", "must be a table"),
            ("[caching]\ninstances = 5\n[caching.instances]", "is not TOML"),
            ("[caching.instance.sessions]\nurl = 'memory://'", "did you mean instances"),
            ("[caching.instances]\nsessions = 'memory://'", "must be a table"),
            ("[caching.instances.sessions]\nttl = 5", r"\[caching.instances.sessions\] needs a url"),
            ("[caching.instances.sessions]\nurl = 5", "needs a url"),
            ("[caching.instances.default]\nurl = 'memory://'", r"is the table \[caching\] itself"),
            ("[caching.instances.'a/b']\nurl = 'memory://'", "must be named with"),
            ("[caching.instances.x.more]\nurl = 'memory://'", "has no setting 'more'"),
        ],
    )
    def test_what_is_wrong_is_named(self, text, hint, tmp_path):
        with pytest.raises(ConfigError, match=hint):
            read(tmp_path, text)

    def test_bad_toml_names_its_line(self, tmp_path):
        with pytest.raises(ConfigError, match=r"noobly\.toml is not TOML: .*line 2"):
            read(tmp_path, '[caching]\nurl = redis"')

    def test_a_file_that_is_not_text(self, tmp_path):
        path = tmp_path / "noobly.toml"
        path.write_bytes(b"\xff\xfe")
        with pytest.raises(ConfigError, match="is not TOML"):
            Settings.read(path, {})

    def test_a_named_file_must_exist(self, tmp_path):
        with pytest.raises(ConfigError, match=r"missing\.toml cannot be read: No such file"):
            Settings.read(environ={"NOOBLY_CONFIG": str(tmp_path / "missing.toml")})


class TestServerSettings:
    @pytest.mark.parametrize(
        ("name", "text", "value"),
        [
            ("host", "0.0.0.0", "0.0.0.0"),
            ("port", "0", 0),
            ("data_dir", "/data", "/data"),
            ("connections", "100", 100),
            ("idle_timeout", "5.5", 5.5),
            ("max_body_bytes", "1024", 1024),
            ("idempotency_ttl", "60.5", 60.5),
            ("shutdown_grace", "5", 5.0),
            ("workers", "4", 4),
            ("per_worker", "caching,logging", "caching,logging"),
            ("otlp_url", "http://localhost:4318/v1/metrics", "http://localhost:4318/v1/metrics"),
            ("otlp_interval", "5", 5.0),
        ],
    )
    def test_each_is_read_from_file_and_variable(self, name, text, value, tmp_path):
        assert getattr(read(tmp_path, f"[server]\n{name} = {json.dumps(value)}").server, name) == value
        changed = Settings.read(environ={f"NOOBLY_SERVER__{name.upper()}": text})
        assert getattr(changed.server, name) == value
        assert rows(changed)[f"server.{name}"] == (value, f"environment NOOBLY_SERVER__{name.upper()}")

    def test_these_are_all(self):
        parameters = {"host", "port", "data_dir", "max_body_bytes", "idempotency_ttl", "shutdown_grace"}
        parameters |= {"workers", "per_worker", "otlp_url", "otlp_interval", "stream_heartbeat", "stream_buffer"}
        parameters |= {"connections", "idle_timeout"}
        assert parameters == set(Server.__struct_fields__)

    def test_the_command_line_wins(self):
        settings = Settings.read(environ={"NOOBLY_SERVER__PORT": "1", "NOOBLY_SERVER__HOST": "::1"})
        changed = settings.with_server(port=2, host=None)
        assert (changed.server.port, changed.server.host) == (2, "::1")
        assert rows(changed)["server.port"] == (2, "command line")
        with pytest.raises(ConfigError, match="65535"):
            settings.with_server(port=65536)


def other(field: msgspec.structs.FieldInfo) -> object:
    """Return a good value of a setting that is not its default."""
    special = {"codec": "msgpack", "compression": "gzip", "refresh_ahead": 0.5, "jitter": 0.25, "top_keys": 7}
    if field.name in special:
        return special[field.name]
    return 7.5 if "float" in str(field.type) else 7


class TestInstances:
    @pytest.mark.parametrize("field", msgspec.structs.fields(CacheOptions), ids=lambda field: field.name)
    async def test_each_option_reaches_the_cache_from_file_and_variable(self, field, tmp_path):
        value = other(field)
        variable = {f"NOOBLY_CACHING__{field.name.upper()}": str(value)}
        for settings in (
            read(tmp_path, f"[caching]\n{field.name} = {json.dumps(value)}"),
            Settings.read(file(tmp_path, ""), variable),
        ):
            assert check(settings) == []
            async with Noobly.open(settings=settings) as noobly:
                assert msgspec.to_builtins(noobly.caching.options)[field.name] == value

    @pytest.mark.parametrize("field", msgspec.structs.fields(Policy), ids=lambda field: field.name)
    async def test_each_policy_reaches_the_instance(self, field, tmp_path):
        value = other(field)
        async with Noobly.open(settings=read(tmp_path, f"[caching]\n{field.name} = {json.dumps(value)}")) as noobly:
            assert getattr(noobly.caching.scope.policy, field.name) == value

    async def test_a_ttl_from_the_file_ends_entries(self, tmp_path):
        clock = FakeClock()
        settings = read(tmp_path, "[caching]\nttl = 60")
        async with Noobly.open(settings=settings, environment=Environment(clock=clock)) as noobly:
            await noobly.caching.put("key", 1)
            clock.advance(59)
            assert await noobly.caching.get("key") == 1
            clock.advance(2)
            assert await noobly.caching.get("key") is None

    async def test_a_providers_option_from_a_variable_acts(self):
        settings = Settings.read(environ={"NOOBLY_CACHING__MAX_ENTRIES": "2"})
        async with Noobly.open(settings=settings) as noobly:
            for key in "abc":
                await noobly.caching.put(key, key)
            assert await noobly.caching.get_many(["a", "b", "c"]) == {"b": "b", "c": "c"}


class TestCheck:
    @pytest.mark.parametrize(
        ("table", "hint"),
        [
            ("ttll = 60", "no setting 'ttll'; did you mean ttl"),
            ("max_entrys = 60", "no setting 'max_entrys'; did you mean max_entries"),
            ("ttl = 'soon'", r"\$\.ttl"),
            ("ttl = -1", r"\$\.ttl"),
            ("attempts = 'x'", r"\$\.attempts"),
            ("compression = 'zip'", r"\$\.compression"),
            ("max_entries = 0", r"\$\.max_entries"),
            ("url = 'nowhere'", "has no scheme"),
            ("url = 'rediss+cluter://x'", "no caching provider has the scheme"),
            ("url = 'memory://?ttll=5'", "no setting 'ttll'"),
        ],
    )
    def test_it_finds_what_opening_would_refuse(self, table, hint, tmp_path):
        settings = read(tmp_path, f"[caching]\n{table}")
        problem, *more = check(settings)
        assert not more
        assert problem.subject == "caching"
        with pytest.raises(ConfigError, match=hint):
            raise problem.error

    @pytest.mark.parametrize("table", ["ttll = 60", "max_entrys = 60", "ttl = 'soon'", "url = 'nowhere'"])
    async def test_opening_refuses_it_too_and_names_the_table(self, table, tmp_path):
        with pytest.raises(ConfigError) as caught:
            async with Noobly.open(file(tmp_path, f"[caching]\n{table}")):
                pass
        assert caught.value.__notes__ == ["in the settings of [caching]"]

    def test_it_reports_every_instance(self, tmp_path):
        found = check(read(tmp_path, "[caching]\nx = 1\n[caching.instances.a]\nurl = 'memory://'\ny = 1"))
        assert [problem.subject for problem in found] == ["caching", "caching.instances.a"]

    def test_it_connects_to_nothing(self, tmp_path):
        assert check(read(tmp_path, '[caching]\nurl = "redis://127.0.0.1:1/0"\nttl = 5')) == []


class TestExplain:
    def test_every_value_has_its_origin(self, tmp_path):
        settings = read(
            tmp_path,
            '[caching]\nurl = "memory://?max_entries=5"\nttl = 60',
            NOOBLY_CACHING__GRACE="5",
        )
        found, path = rows(settings), tmp_path / "noobly.toml"
        assert found["caching.url"] == ("memory://?max_entries=5", f"{path} [caching]")
        assert found["caching.ttl"] == (60, f"{path} [caching]")
        assert found["caching.grace"] == ("5", "environment NOOBLY_CACHING__GRACE")
        assert found["caching.max_entries"] == ("5", f"in the URL: {path} [caching]")
        assert found["caching.jitter"] == (0.0, "default")
        assert found["caching.max_bytes"] == (256 * 1024 * 1024, "default")
        assert found["caching.compression"] == ("none", "default")
        assert found["server.port"] == (11000, "default")

    def test_what_was_made_in_code_says_so(self):
        instance = Instance(url="memory://?ttl=5", options={"grace": 5})
        found = rows(Settings(server=Server(port=0), services={"caching": {"default": instance}}))
        assert found["caching.url"][1] == found["caching.grace"][1] == found["server.port"][1] == "code"
        assert found["caching.ttl"] == ("5", "in the URL: code")

    def test_each_setting_is_shown_once(self, tmp_path):
        settings = read(tmp_path, '[caching]\nurl = "redis://localhost:6379/0?ttl=5"\nttl = 60')
        names = [row.name for row in explain(settings)]
        assert len(names) == len(set(names))
        assert rows(settings)["caching.ttl"][0] == 60

    @pytest.mark.parametrize(
        "table",
        [
            f'url = "redis://user:{SECRET}@localhost/0"',
            f'url = "redis://user:{SECRET}/x@localhost/0"',
            f'url = "redis://user:{SECRET}#x@localhost/0"',
            f'url = "redis://user:{SECRET}?x@localhost/0"',
            f'url = "redis://localhost/0?password={SECRET}"',
            f'url = "redis://localhost/0?pasword={SECRET}"',
            f'url = "redis://localhost/0"\npassword = "{SECRET}"',
            f'url = "redis://localhost/0"\npasswrod = "{SECRET}"',
            f'url = "nobody://localhost/0"\ntoken = "{SECRET}"',
            f'url = "redis://[user:{SECRET}@localhost/0"',
        ],
    )
    def test_secrets_are_masked_wherever_they_stand(self, table, tmp_path):
        settings = read(tmp_path, f"[caching]\n{table}")
        told = msgspec.json.encode(explain(settings)).decode()
        assert SECRET not in told
        assert MASK in told
        assert SECRET not in repr(settings)
        assert check(settings)

    @pytest.mark.parametrize("place", ["//user:{}@localhost", "//localhost/0?password={}", "//localhost/0?x={}"])
    def test_what_is_wrong_with_a_secret_does_not_show_it(self, place, tmp_path):
        found = check(read(tmp_path, f'[caching]\nurl = "redis:{place.format(SECRET)}"'))
        assert len(found) == 1
        assert SECRET not in found[0].error.message

    def test_references_to_secrets_are_shown(self, tmp_path):
        settings = read(tmp_path, '[caching]\nurl = "redis://localhost/0"\npassword = "env:REDIS_PASSWORD"')
        assert rows(settings)["caching.password"][0] == "env:REDIS_PASSWORD"

    def test_a_provider_that_is_not_known_is_explained_without_its_defaults(self, tmp_path):
        found = rows(read(tmp_path, '[caching]\nurl = "nobody://localhost"\nx = 5\nttl = 5'))
        assert found["caching.x"][0] == MASK
        assert found["caching.ttl"][0] == 5

    @pytest.mark.parametrize("url", ["memory://", "redis://localhost:6379/0", "file:///var/cache/app", "memory:"])
    def test_a_url_without_secrets_is_shown_as_it_is(self, url):
        assert mask_url(url, {}) == url


class TestTable:
    def test_a_service_is_listed_by_its_registry(self):
        assert all(name == service.registry.service for name, service in SERVICES.items())
        assert all(issubclass(service.options, Config) for service in SERVICES.values())

    async def test_an_instance_that_is_not_configured_is_refused_with_those_that_are(self):
        async with Noobly.open(settings=Settings()) as noobly:
            with pytest.raises(NotFound, match="configured are default"):
                noobly.caching["sessions"]
