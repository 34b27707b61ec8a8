"""Queueing: messages delivered at least once under a lease, with dead letters, on any provider."""

from noobly.queueing.consuming import Consumption
from noobly.queueing.driver import Can
from noobly.queueing.holding import Message
from noobly.queueing.messages import (
    DeadLetter,
    Delivery,
    Outbound,
    Peeked,
    QueueStats,
    Receipt,
    Redriven,
    Returned,
)
from noobly.queueing.opening import open_queues
from noobly.queueing.options import QueueOptions
from noobly.queueing.queues import Queues
from noobly.queueing.typed import TypedQueue

__all__ = [
    "Can",
    "Consumption",
    "DeadLetter",
    "Delivery",
    "Message",
    "Outbound",
    "Peeked",
    "QueueOptions",
    "QueueStats",
    "Queues",
    "Receipt",
    "Redriven",
    "Returned",
    "TypedQueue",
    "open_queues",
]
