"""What tests of Noobly are made of, and tests of providers that others write; imports without pytest."""

from noobly.testing.clock import FakeClock, FixedChance, eventually
from noobly.testing.proxy import TcpProxy
from noobly.testing.servers import (
    SERVERS,
    Node,
    OwnedServer,
    Reply,
    RunningServer,
    ServerFailed,
    ServerMissing,
    ServerSpec,
    free_port,
    node,
    node_or_skip,
    obtain,
    private,
    private_or_skip,
    required,
    server_or_skip,
)

__all__ = [
    "SERVERS",
    "FakeClock",
    "FixedChance",
    "Node",
    "OwnedServer",
    "Reply",
    "RunningServer",
    "ServerFailed",
    "ServerMissing",
    "ServerSpec",
    "TcpProxy",
    "eventually",
    "free_port",
    "node",
    "node_or_skip",
    "obtain",
    "private",
    "private_or_skip",
    "required",
    "server_or_skip",
]
