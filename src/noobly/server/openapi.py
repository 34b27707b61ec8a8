"""The OpenAPI 3.1 document, made of the declarations that also make the routes (https://spec.openapis.org/oas/v3.1.0)."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, NamedTuple

import msgspec

from noobly.app import Noobly
from noobly.core import errors
from noobly.core.errors import NooblyError
from noobly.core.public import Param, Route, routes
from noobly.core.wire import JSON, MSGPACK, RAW, STREAM
from noobly.layers.health import Health
from noobly.server.auth import COOKIE
from noobly.server.native import Description, ServiceEntry
from noobly.server.problems import ProblemDetails
from noobly.server.routes import Access, Endpoint
from noobly.server.schemas import REF, Schema, Schemas, Words, with_meaning, words
from noobly.server.spec import Body, Header, Invocation, Media, Operation, Parameter, Ref, Response

PROBLEM = "application/problem+json"
_TEXT: Schema = {"type": "string"}
_DEFAULT = "default"
_GUARDED = ("Internal", "Unauthenticated", "PermissionDenied")
_CALLED = ("InvalidArgument", "RateLimited", "Unsupported", "Unavailable", "DeadlineExceeded")


class _Page(NamedTuple):
    """What an endpoint that is no public method answers: media types, and the types of what they hold."""

    summary: str
    answers: Mapping[str, object]


_PAGES: Mapping[str, _Page] = {
    "health.live": _Page("Tell that the process answers.", {JSON: dict[str, str]}),
    "health.ready": _Page("Tell whether the server can serve; the status is 503 where not.", {JSON: dict[str, str]}),
    "health.details": _Page("Return how each instance is.", {JSON: list[Health]}),
    "metrics": _Page("Return all metrics for Prometheus.", {"text/plain": str, "application/openmetrics-text": str}),
    "openapi": _Page("Return this document.", {JSON: dict[str, Any]}),
    "services": _Page("Return the services that run here, with their instances.", {JSON: list[ServiceEntry]}),
}
_DESCRIBE = _Page("Return what this instance is, and its operations.", {JSON: Description})


class _Call(NamedTuple):
    """A public method of one instance."""

    service: str
    instance: str
    portable: type
    route: Route

    @property
    def arguments(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(getattr(self.portable, self.route.name)).parameters

    def in_body(self, param: Param) -> bool:
        return param.name == self.route.body or (self.route.body is None and self.route.verb == "POST")


def document(endpoints: Sequence[Endpoint], noobly: Noobly) -> bytes:
    """Return the OpenAPI document of these endpoints of an open ``Noobly``, as JSON."""
    calls: dict[tuple[str, str], _Call] = {
        (route.verb, f"/v1/{service}/{instance}/{route.path}"): _Call(service, instance, type(portable), route)
        for service, default in noobly.services.items()
        for instance, portable in default.siblings.items()
        for route in routes(type(portable))
    }
    schemas = Schemas(_types(calls.values()))
    paths: dict[str, dict[str, Operation]] = {}
    for endpoint in endpoints:
        call = calls.get((endpoint.method, endpoint.path))
        path = endpoint.path + "".join(f"/{{{name}}}" for name in _texts(endpoint))
        described = _native(endpoint, call, schemas) if call else _other(endpoint, schemas)
        paths.setdefault(path, {})[endpoint.method.lower()] = described
    return msgspec.json.encode(_root(paths, schemas, noobly))


def _types(calls: Iterable[_Call]) -> Iterator[object]:
    yield from (ProblemDetails, Any)
    for page in (*_PAGES.values(), _DESCRIBE):
        yield from page.answers.values()
    for call in calls:
        yield call.route.returns
        yield from (param.type for param in call.route.params)


def _root(paths: dict[str, dict[str, Operation]], schemas: Schemas, noobly: Noobly) -> dict[str, object]:
    tags = {name: words(type(portable).__doc__).summary for name, portable in noobly.services.items()}
    tags |= {"server": "The server itself.", "legacy": "The routes of nooblyjs-core 1.0.14, for its clients."}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Noobly",
            "version": version("noobly"),
            "description": "Errors are problem details (RFC 9457). Each answer has its request's id in `x-request-id`.",
        },
        "servers": [{"url": "."}],
        "security": [{"apiKey": []}, {"bearer": []}, {"session": []}],
        "tags": [{"name": name, "description": summary} for name, summary in tags.items()],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "parameters": {"IdempotencyKey": _IDEMPOTENCY_KEY},
            "responses": _problems(schemas),
            "securitySchemes": {
                "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "bearer": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": COOKIE},
            },
        },
    }


_IDEMPOTENCY_KEY = Parameter(
    name="Idempotency-Key",
    in_="header",
    description="Any text; a request that is repeated with it takes effect once and gets the first answer again.",
    schema={"type": "string", "minLength": 1, "maxLength": 255},
)
_RETRY_AFTER = {"retry-after": Header(description="Seconds to wait, where known.", schema={"type": "integer"})}
_HEADERS = {
    401: {"www-authenticate": Header(description="How to authenticate.", schema=_TEXT)},
    409: _RETRY_AFTER,
    429: _RETRY_AFTER,
    503: _RETRY_AFTER,
}


def _problems(schemas: Schemas) -> dict[str, Response]:
    """Return a response for each status of the error tree, with the codes it comes with."""
    tree = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, NooblyError)]
    problem = schemas.of(ProblemDetails)
    found = {"Problem": Response(description="Any other problem.", content={PROBLEM: Media(schema=problem)})}
    for status in sorted({one.status for one in tree}):
        codes = sorted({one.code for one in tree if one.status == status})
        exact = {"properties": {"status": {"const": status}, "code": {"enum": codes}}}
        found[f"Problem{status}"] = Response(
            description=f"{HTTPStatus(status).phrase}: {', '.join(codes)}.",
            headers=_HEADERS.get(status, {}),
            content={PROBLEM: Media(schema={"allOf": [problem, exact]})},
        )
    return found


def _failures(names: Iterable[str]) -> dict[str, Response | Ref]:
    known = {vars(errors)[name].status for name in names if name in vars(errors)}
    failures = {str(status): f"Problem{status}" for status in sorted(known)} | {_DEFAULT: "Problem"}
    return {status: Ref(ref=REF.format("responses", name)) for status, name in failures.items()}


def _native(endpoint: Endpoint, call: _Call, schemas: Schemas) -> Operation:
    said, body = words(call.route.doc), _body(call, schemas)
    named = call.instance != _DEFAULT
    method = f'{call.service}["{call.instance}"]' if named else call.service
    return Operation(
        tags=[call.service],
        operation_id=f"{call.service}_{call.route.name}" + (f"__{call.instance}" if named else ""),
        summary=said.summary,
        description=said.description,
        parameters=_parameters(call, said, schemas),
        request_body=body,
        responses={
            **_success(call.route, said, schemas),
            **_failures(_raised(call.route, said, takes_body=body is not None)),
        },
        security=_security(endpoint),
        x_noobly_scope=_scope(endpoint),
        x_noobly_instance=call.instance,
        x_noobly_call=Invocation(
            method=f"noobly.{method}.{call.route.name}",
            positional=_positional(call),
            body=call.route.body or "",
            streams=call.route.streams,
        ),
    )


def _raised(route: Route, said: Words, *, takes_body: bool) -> Iterator[str]:
    yield from (*_GUARDED, *_CALLED, *said.raises)
    if route.absent is not None:
        yield "NotFound"
    if takes_body:
        yield "TooLarge"
    if not route.idempotent:
        yield "Conflict"


def _positional(call: _Call) -> list[str]:
    given = [call.arguments[param.name] for param in call.route.params if param.required]
    return [one.name for one in given if one.kind is not inspect.Parameter.KEYWORD_ONLY]


def _parameters(call: _Call, said: Words, schemas: Schemas) -> list[Parameter | Ref]:
    found: list[Parameter | Ref] = [
        Parameter(
            name=param.name,
            in_="query",
            required=param.required,
            description=_meaning(param, said),
            schema={**schemas.present(param.type), **_preset(param, call)},
        )
        for param in call.route.params
        if not call.in_body(param)
    ]
    if not call.route.idempotent:
        found.append(Ref(ref=REF.format("parameters", "IdempotencyKey")))
    return found


def _meaning(param: Param, said: Words) -> str:
    return said.params.get(param.name) or ("Seconds." if param.duration else "")


def _preset(param: Param, call: _Call) -> Schema:
    value = call.arguments[param.name].default
    return {} if value is None or param.required else {"default": msgspec.to_builtins(value)}


def _body(call: _Call, schemas: Schemas) -> Body | None:
    said = words(call.route.doc)
    carried = [param for param in call.route.params if call.in_body(param)]
    if not carried:
        return None
    if call.route.body is not None:
        whole = with_meaning(schemas.of(carried[0].type), _meaning(carried[0], said))
        return Body(required=carried[0].required, content=_contents(whole, carried[0].type))
    members = {
        one.name: {**with_meaning(schemas.of(one.type), _meaning(one, said)), **_preset(one, call)} for one in carried
    }
    required = [one.name for one in carried if one.required]
    whole = {"type": "object", "properties": members, "required": required, "additionalProperties": False}
    reference = schemas.named(f"{call.service}_{call.route.name}_arguments", whole)
    return Body(required=bool(required), content=_contents(reference, dict))


def _success(route: Route, said: Words, schemas: Schemas) -> dict[str, Response | Ref]:
    if route.returns is type(None):
        return {"204": Response(description="Done.")}
    if route.streams:
        text = "Events as they come; the data of each is of this form. `skipped`, `error` and `end` tell of the stream."
        return {"200": Response(description=text, content={STREAM: Media(schema=schemas.of(route.returns))})}
    content = _contents(schemas.of(route.returns), route.returns)
    return {"200": Response(description=said.returns or "The answer.", content=content)}


def _contents(schema: Schema, type: object) -> dict[str, Media]:
    """Return the media types in which values of a type travel; what may be bytes travels raw, too."""
    kinds = (JSON, MSGPACK, RAW) if type in (Any, object, bytes) else (JSON, MSGPACK)
    return {kind: Media(schema={} if kind == RAW else schema) for kind in kinds}


def _other(endpoint: Endpoint, schemas: Schemas) -> Operation:
    """Describe an endpoint that is no public method: one of the server's own, or a legacy one."""
    area, _, name = endpoint.name.rpartition(".")
    describes, legacy = name == "describe", endpoint.name.startswith("legacy.")
    instance = endpoint.path.rpartition("/")[2] if describes else ""
    page = _DESCRIBE if describes else _PAGES.get(endpoint.name, _Page(_spoken(endpoint), {"*/*": Any}))
    failures = {_DEFAULT: Response(description="A problem, in words.")} if legacy else _failures(_GUARDED)
    content = {kind: Media(schema=schemas.of(type)) for kind, type in page.answers.items()}
    return Operation(
        tags=["legacy" if legacy else area if describes else "server"],
        operation_id=endpoint.name.replace(".", "_") + (f"__{instance}" if instance not in ("", _DEFAULT) else ""),
        summary=page.summary,
        deprecated=legacy,
        parameters=[Parameter(name=text, in_="path", required=True, schema=_TEXT) for text in _texts(endpoint)],
        request_body=Body(content={JSON: Media(schema={})}) if endpoint.method in ("POST", "PUT") else None,
        responses={"200": Response(description="The answer.", content=content), **failures},
        security=_security(endpoint),
        x_noobly_scope=_scope(endpoint),
        x_noobly_instance=instance,
    )


def _spoken(endpoint: Endpoint) -> str:
    if endpoint.name.startswith("legacy."):
        return f"{endpoint.name.rpartition('.')[2].capitalize()}, as nooblyjs-core does."
    return words(endpoint.handler.__doc__).summary


def _texts(endpoint: Endpoint) -> list[str]:
    return ["text"] if endpoint.segments == 1 else [f"text{place + 1}" for place in range(endpoint.segments)]


def _security(endpoint: Endpoint) -> list[dict[str, list[str]]] | None:
    return None if isinstance(endpoint.access, Access) else []


def _scope(endpoint: Endpoint) -> str:
    return f"{endpoint.access.service}:{endpoint.access.permission}" if isinstance(endpoint.access, Access) else ""
