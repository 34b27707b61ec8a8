"""The providers of logging: the table of schemes, and nothing else."""

from noobly.core.registry import Provider, Registry

_REMOTE = Provider("noobly.logging.providers.remote:RemoteLogs", None, "a Noobly server, over HTTP")

REGISTRY = Registry(
    "logging",
    {
        "memory": Provider("noobly.logging.providers.memory:MemoryLogs", None, "this process, bounded"),
        "file": Provider("noobly.logging.providers.file:FileLogs", None, "JSON lines, rotated, shared by processes"),
        "remote": _REMOTE,
        "api": _REMOTE,
        "http": _REMOTE,
        "https": _REMOTE,
    },
)
