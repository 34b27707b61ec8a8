"""The kinds of server the launcher knows: how to start one, and how to tell that it answers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from noobly.testing._rabbitmq import RABBITMQ
from noobly.testing._spec import LOOPBACK, Reply, ServerSpec, ask


def _redis_probe(host: str, port: int) -> Reply:
    answer = ask(host, port, b"PING\r\n")
    if answer.startswith(b"-NOAUTH"):
        return Reply.LOCKED
    return Reply.READY if answer.startswith(b"+PONG") else Reply.SILENT


def _redis_arguments(port: int, folder: Path) -> list[str]:
    storage = ["--dir", str(folder), "--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"]
    return ["--port", str(port), "--bind", LOOPBACK, *storage]


def _memcached_probe(host: str, port: int) -> Reply:
    return Reply.READY if ask(host, port, b"version\r\n").startswith(b"VERSION ") else Reply.SILENT


def _memcached_arguments(port: int, _folder: Path) -> list[str]:
    user = ["-u", "nobody"] if os.geteuid() == 0 else []  # it refuses to run as root
    return [*user, "-l", LOOPBACK, "-p", str(port), "-U", "0", "-m", "64"]


def _get(host: str, port: int, path: str) -> bytes:
    """Return the first bytes of a good answer to an HTTP request; none if it failed."""
    answer = ask(host, port, f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
    return answer if answer[8:12] == b" 200" else b""


def _prometheus_probe(host: str, port: int) -> Reply:
    return Reply.READY if _get(host, port, "/-/ready") else Reply.SILENT


def _prometheus_arguments(port: int, folder: Path) -> list[str]:
    """Write a configuration that scrapes each second what ``targets.json`` in the folder comes to name."""
    config = folder / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
        "scrape_configs:\n"
        "  - job_name: noobly\n"
        f"    file_sd_configs: [{{files: ['{folder}/targets.json'], refresh_interval: 1s}}]\n"
    )
    listen = ["--web.listen-address", f"{LOOPBACK}:{port}", "--log.level", "warn"]
    storage = ["--storage.tsdb.path", str(folder / "data"), "--enable-feature", "exemplar-storage"]
    return ["--config.file", str(config), *storage, *listen]


def _moto_probe(host: str, port: int) -> Reply:
    # Port 5000 is anybody's: the framework's name tells it from a server that has a page for every path.
    return Reply.READY if b"Werkzeug" in _get(host, port, "/moto-api/") else Reply.SILENT


def _moto_arguments(port: int, _folder: Path) -> list[str]:
    return ["--host", LOOPBACK, "--port", str(port)]


def _ministack_probe(host: str, port: int) -> Reply:
    return Reply.READY if b"x-amzn-requestid" in _get(host, port, "/_ministack/health").lower() else Reply.SILENT


def _ministack_arguments(_port: int, _folder: Path) -> list[str]:
    return []


def _ministack_environment(port: int, folder: Path) -> Mapping[str, str]:
    """Return settings that keep it to its port and folder, and away from any Docker daemon."""
    listen = {"GATEWAY_PORT": str(port), "BIND_HOST": LOOPBACK, "MINISTACK_HOST": LOOPBACK}
    storage = {"TMPDIR": str(folder), "S3_DATA_DIR": str(folder / "s3")}
    return {**listen, **storage, "SFTP_ENABLED": "0", "IOT_MTLS_ENABLED": "0", "DOCKER_HOST": f"unix://{folder}/none"}


_KINDS = (
    ServerSpec(
        name="redis",
        default_port=6379,
        scheme="redis",
        package="redis-server",
        program="redis-server",
        arguments=_redis_arguments,
        probe=_redis_probe,
    ),
    ServerSpec(
        name="memcached",
        default_port=11211,
        scheme="memcached",
        package="memcached",
        program="memcached",
        arguments=_memcached_arguments,
        probe=_memcached_probe,
        grace=0.0,  # it looks for SIGTERM once a second, and has nothing to save
    ),
    ServerSpec(
        name="prometheus",
        default_port=9090,
        scheme="http",
        package="prometheus",
        program="prometheus",
        arguments=_prometheus_arguments,
        probe=_prometheus_probe,
        patience=20.0,
    ),
    RABBITMQ,
    ServerSpec(
        name="moto",
        default_port=5000,
        scheme="http",
        requirements=("moto==5.2.5", "flask", "flask-cors"),
        program="moto_server",
        arguments=_moto_arguments,
        probe=_moto_probe,
        patience=20.0,
    ),
    ServerSpec(
        name="ministack",
        default_port=4566,
        scheme="http",
        requirements=("ministack==1.5.33",),
        program="ministack",
        arguments=_ministack_arguments,
        environment=_ministack_environment,
        probe=_ministack_probe,
        patience=20.0,
    ),
)
SERVERS: Mapping[str, ServerSpec] = MappingProxyType({spec.name: spec for spec in _KINDS})
"""Every kind of server the launcher knows, by name."""
