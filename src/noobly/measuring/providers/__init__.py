"""The providers of measuring: the table of schemes, and nothing else."""

from noobly.core.registry import Provider, Registry

_REMOTE = Provider("noobly.clients.http:HttpCaller", None, "a Noobly server, over HTTP")

REGISTRY = Registry(
    "measuring",
    {
        "memory": Provider("noobly.measuring.providers.memory:MemoryMetrics", None, "this process, bounded"),
        "sqlite": Provider("noobly.measuring.providers.sqlite:SqliteMetrics", None, "a file, shared by processes"),
        "remote": _REMOTE,
        "api": _REMOTE,
        "http": _REMOTE,
        "https": _REMOTE,
    },
)
