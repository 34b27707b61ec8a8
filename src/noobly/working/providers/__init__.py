"""The providers of working: the table of schemes, and nothing else."""

from noobly.core.registry import Provider, Registry

_BULL = Provider("noobly.working.providers.bullmq:BullJobs", "bullmq", "Redis, shared with BullMQ in Node")
_REMOTE = Provider("noobly.clients.http:HttpCaller", None, "a Noobly server, over HTTP")

REGISTRY = Registry(
    "working",
    {
        "memory": Provider("noobly.working.providers.memory:MemoryJobs", None, "this process, bounded"),
        "sqlite": Provider("noobly.working.providers.sqlite:SqliteJobs", None, "a file, shared by processes"),
        "bullmq": _BULL,
        "bullmqs": _BULL,
        "bullmq+sentinel": _BULL,
        "bullmqs+sentinel": _BULL,
        "remote": _REMOTE,
        "api": _REMOTE,
        "http": _REMOTE,
        "https": _REMOTE,
    },
)
