"""The providers of caching: the table of schemes, and nothing else."""

from noobly.core.registry import Provider, Registry

_REDIS = Provider("noobly.caching.providers.redis:RedisCache", "redis", "Redis, Valkey and compatible servers")
_TIERED = Provider("noobly.caching.providers.tiered:TieredCache", "redis", "memory in front of a shared store")
_REMOTE = Provider("noobly.clients.http:HttpCaller", None, "a Noobly server, over HTTP")

REGISTRY = Registry(
    "caching",
    {
        "memory": Provider("noobly.caching.providers.memory:MemoryCache", None, "this process, bounded"),
        "file": Provider("noobly.caching.providers.file:FileCache", None, "a folder, shared by processes"),
        "redis": _REDIS,
        "rediss": _REDIS,
        "redis+cluster": _REDIS,
        "rediss+cluster": _REDIS,
        "redis+sentinel": _REDIS,
        "rediss+sentinel": _REDIS,
        "valkey": _REDIS,
        "valkeys": _REDIS,
        "memcached": Provider("noobly.caching.providers.memcached:MemcachedCache", "memcached", "memcached"),
        "tiered+redis": _TIERED,
        "tiered+rediss": _TIERED,
        "tiered+redis+sentinel": _TIERED,
        "tiered+valkey": _TIERED,
        "tiered+valkeys": _TIERED,
        "tiered+memcached": Provider(_TIERED.target, "memcached", _TIERED.summary),
        "tiered+file": Provider(_TIERED.target, None, _TIERED.summary),
        "remote": _REMOTE,
        "api": _REMOTE,
        "http": _REMOTE,
        "https": _REMOTE,
    },
)
