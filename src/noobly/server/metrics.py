"""``/metrics``: Prometheus text or OpenMetrics by negotiation, rendered off the event loop."""

from __future__ import annotations

from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import Response

from noobly.core.meter import Meter
from noobly.measuring.exposition import Exposition, Wanted, negotiate, takes_gzip
from noobly.server.routes import Access, Endpoint


def metrics(meter: Meter) -> Iterator[Endpoint]:
    """Yield the endpoint that exposes an application's metrics."""
    exposition = Exposition(meter)

    async def answer(request: Request, texts: tuple[str, ...]) -> Response:
        wanted = Wanted(
            format=negotiate(request.headers.get("accept", "")),
            gzip=takes_gzip(request.headers.get("accept-encoding", "")),
            names=frozenset(request.query_params.getlist("name[]")),
        )
        page = await exposition.page(wanted)
        headers = {"content-type": wanted.format.value, "vary": "accept, accept-encoding"}
        if page.gzip:
            headers["content-encoding"] = "gzip"
        return Response(page.content, headers=headers)

    yield Endpoint(method="GET", path="/metrics", access=Access("server", "read"), handler=answer, name="metrics")
