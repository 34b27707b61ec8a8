"""The providers of queueing: the table of schemes, and nothing else."""

from noobly.core.registry import Provider, Registry

_REDIS = Provider("noobly.queueing.providers.redis:RedisQueues", "redis", "Redis, Valkey and compatible servers")
_RABBITMQ = Provider("noobly.queueing.providers.rabbitmq:RabbitmqQueues", "rabbitmq", "RabbitMQ 3.10 or later")
_REMOTE = Provider("noobly.clients.http:HttpCaller", None, "a Noobly server, over HTTP")

REGISTRY = Registry(
    "queueing",
    {
        "memory": Provider("noobly.queueing.providers.memory:MemoryQueues", None, "this process, bounded"),
        "sqlite": Provider("noobly.queueing.providers.sqlite:SqliteQueues", None, "a file, shared by processes"),
        "redis": _REDIS,
        "rediss": _REDIS,
        "redis+cluster": _REDIS,
        "rediss+cluster": _REDIS,
        "redis+sentinel": _REDIS,
        "rediss+sentinel": _REDIS,
        "valkey": _REDIS,
        "valkeys": _REDIS,
        "sqs": Provider("noobly.queueing.providers.sqs:SqsQueues", "sqs", "Amazon SQS, standard and FIFO queues"),
        "rabbitmq": _RABBITMQ,
        "rabbitmqs": _RABBITMQ,
        "amqp": _RABBITMQ,
        "amqps": _RABBITMQ,
        "remote": _REMOTE,
        "api": _REMOTE,
        "http": _REMOTE,
        "https": _REMOTE,
    },
)
