"""A Grafana dashboard and Prometheus alert rules for the suite, made from what its instruments say of themselves.

Every metric that a panel or an alert names is one that was declared; a name that was not is an error here, and not a
panel without data there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from noobly.core.errors import Internal
from noobly.core.lines import Head, Merge
from noobly.measuring.runtime import LAG, PAUSES
from noobly.measuring.totals import ENDS, WORKERS

_FOREIGN = frozenset(
    {
        "up",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
    }
)
"""What Prometheus and prometheus-client have without anybody declaring it."""

_NAME = re.compile(r"\b(?:noobly|process)_[a-z0-9_]+|\bup\b")
_WINDOW = "$__rate_interval"
_WIDTH, _HEIGHT, _COLUMNS = 8, 8, 3


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One alert.

    Args:
        name: Its name.
        expr: When it fires, in PromQL.
        lasting: How long that must hold, such as ``5m``.
        severity: ``critical`` where users are hurt now, else ``warning``.
        summary: What has happened.
        action: What to look at.
    """

    name: str
    expr: str
    lasting: str
    severity: str
    summary: str
    action: str


class Query(NamedTuple):
    """One query of a panel, and the name of its series."""

    expr: str
    legend: str


class Panel(NamedTuple):
    """One panel; the unit is Grafana's name for it."""

    title: str
    unit: str
    queries: tuple[Query, ...]
    text: str = ""


_DURATION = "noobly_operation_duration_seconds"
_STORES = 'service!="server"'
WAITS = ("receive", "poll", "claim", "wait")
"""Operations that wait for something to come; how long they take says nothing of their store."""

_PROMPT = f'{_STORES},operation!~"{"|".join(WAITS)}"'
_HTTP = 'service="server"'
_PROMPT_HTTP = f'{_HTTP},operation!~".*[.]({"|".join(WAITS)}|task)"'

ALERTS = (
    Alert(
        name="NooblyDown",
        expr='up{job=~".*noobly.*"} == 0',
        lasting="1m",
        severity="critical",
        summary="{{ $labels.instance }} does not answer",
        action="Look at the process and at /health/ready.",
    ),
    Alert(
        name="NooblyHttpErrors",
        expr=f'sum(rate({_DURATION}_count{{{_HTTP},outcome=~"5.."}}[5m])) '
        f"/ sum(rate({_DURATION}_count{{{_HTTP}}}[5m])) > 0.05",
        lasting="5m",
        severity="critical",
        summary="{{ $value | humanizePercentage }} of HTTP requests fail",
        action="The panel of failures by outcome tells which operation it is; the log has the request ids.",
    ),
    Alert(
        name="NooblyOperationsFail",
        expr=f'sum by (service, provider) (rate({_DURATION}_count{{{_STORES},outcome=~"unavailable|internal|'
        f'deadline_exceeded"}}[5m])) / sum by (service, provider) (rate({_DURATION}_count{{{_STORES}}}[5m])) > 0.01',
        lasting="5m",
        severity="warning",
        summary="{{ $labels.service }} on {{ $labels.provider }} fails {{ $value | humanizePercentage }} of its calls",
        action="Look at the store behind the provider, and run `noobly doctor`.",
    ),
    Alert(
        name="NooblyOperationsSlow",
        expr="histogram_quantile(0.99, sum by (service, provider, le) "
        f"(rate({_DURATION}_bucket{{{_PROMPT}}}[5m]))) > 1",
        lasting="10m",
        severity="warning",
        summary="1 % of {{ $labels.service }} calls on {{ $labels.provider }} take more than "
        "{{ $value | humanizeDuration }}",
        action="Look at the store behind the provider, and at the lag of the event loop.",
    ),
    Alert(
        name="NooblyCircuitOpen",
        expr="max by (service, instance, provider) (noobly_circuit_open) == 1",
        lasting="1m",
        severity="critical",
        summary="calls of {{ $labels.service }} {{ $labels.instance }} to {{ $labels.provider }} fail at once",
        action="The store was down several times in a row; calls go on once one trial gets through.",
    ),
    Alert(
        name="NooblyEventLoopLate",
        expr=f"histogram_quantile(0.99, sum by (instance, le) (rate({LAG.name}_bucket[5m]))) > 0.1",
        lasting="10m",
        severity="warning",
        summary="the event loop of {{ $labels.instance }} comes {{ $value | humanizeDuration }} late",
        action="Something blocks it: a synchronous call, or more work than one process can do.",
    ),
    Alert(
        name="NooblyWorkersEnd",
        expr=f"increase({ENDS.name}_total[15m]) > 3",
        lasting="0m",
        severity="warning",
        summary="workers of {{ $labels.instance }} ended {{ $value }} times with code {{ $labels.code }}",
        action="Code -9 is often the memory limit; otherwise the log tells.",
    ),
    Alert(
        name="NooblyQueueLate",
        expr="max by (queue) (noobly_queue_oldest_seconds) > 600",
        lasting="5m",
        severity="warning",
        summary="the oldest message of queue {{ $labels.queue }} waits for {{ $value | humanizeDuration }}",
        action="Its consumers are gone or too few: look at what was received, and at `noobly queues list`.",
    ),
    Alert(
        name="NooblyDeadLetters",
        expr='sum by (queue) (increase(noobly_queue_messages_total{event="died"}[10m])) > 0',
        lasting="0m",
        severity="warning",
        summary="{{ $value }} messages of queue {{ $labels.queue }} went to its dead letters",
        action="`noobly queues peek --dead` shows them with their errors, `noobly queues redrive` sends them again.",
    ),
    Alert(
        name="NooblyJobsFail",
        expr='sum by (task) (rate(noobly_job_duration_seconds_count{verdict="failed"}[10m])) '
        "/ sum by (task) (rate(noobly_job_duration_seconds_count[10m])) > 0.05",
        lasting="10m",
        severity="warning",
        summary="{{ $value | humanizePercentage }} of the attempts of task {{ $labels.task }} fail for good",
        action="The failed jobs have the errors; `rerun` runs them once more.",
    ),
    Alert(
        name="NooblyFilesNearLimit",
        expr="process_open_fds / process_max_fds > 0.8",
        lasting="5m",
        severity="warning",
        summary="{{ $labels.instance }} has {{ $value | humanizePercentage }} of its file descriptors open",
        action="Raise the limit, or look for connections that are not closed.",
    ),
)


def _by(expr: str, legend: str) -> tuple[Query, ...]:
    return (Query(expr, legend),)


def _quantiles(name: str, by: str, selector: str = "") -> tuple[Query, ...]:
    label = f"{{{{{by}}}}} " if by else ""
    group = f"le, {by}" if by else "le"
    return tuple(
        Query(
            f"histogram_quantile({share}, sum by ({group}) (rate({name}_bucket{{{selector}}}[{_WINDOW}])))",
            f"{label}p{share * 100:g}",
        )
        for share in (0.5, 0.95, 0.99)
    )


PANELS = (
    Panel(
        "Requests",
        "reqps",
        _by(f"sum by (operation) (rate({_DURATION}_count{{{_HTTP}}}[{_WINDOW}]))", "{{operation}}"),
    ),
    Panel(
        "Requests that fail",
        "reqps",
        _by(
            f'sum by (operation, outcome) (rate({_DURATION}_count{{{_HTTP},outcome=~"[45].."}}[{_WINDOW}]))',
            "{{operation}} {{outcome}}",
        ),
    ),
    Panel("Duration of requests", "s", _quantiles(_DURATION, "", _PROMPT_HTTP)),
    Panel(
        "Operations",
        "ops",
        _by(
            f"sum by (service, operation) (rate({_DURATION}_count{{{_STORES}}}[{_WINDOW}]))",
            "{{service}}.{{operation}}",
        ),
    ),
    Panel(
        "Operations that fail",
        "ops",
        _by(
            f'sum by (service, provider, outcome) (rate({_DURATION}_count{{{_STORES},outcome!="ok"}}[{_WINDOW}]))',
            "{{service}} on {{provider}}: {{outcome}}",
        ),
    ),
    Panel("Duration of operations", "s", _quantiles(_DURATION, "service", _PROMPT)),
    Panel("Memory", "bytes", _by("process_resident_memory_bytes", "{{instance}}")),
    Panel("CPU", "percentunit", _by(f"rate(process_cpu_seconds_total[{_WINDOW}])", "{{instance}}")),
    Panel("Open files", "short", _by("process_open_fds", "{{instance}}")),
    Panel("Event loop: how late it comes", "s", _quantiles(LAG.name, "")),
    Panel("Garbage collection: how long it stops", "s", _quantiles(PAUSES.name, "")),
    Panel("Workers", "short", _by(WORKERS.name, "{{instance}}")),
)
"""What every service has; the metrics that no panel here shows get one each of their own."""


def dashboard(heads: Iterable[Head]) -> str:
    """Return a Grafana dashboard as JSON, to be imported; it asks for the data source.

    Args:
        heads: What the families of an application say of themselves.

    Raises:
        Internal: A panel names a metric that is not declared.
    """
    declared = [*heads, LAG, PAUSES, WORKERS, ENDS]
    shown = names_in(query.expr for panel in PANELS for query in panel.queries)
    _check(shown, declared)
    own = [_panel_of(head) for head in _unique(declared) if not shown & _samples(head)]
    panels = [_grafana(panel, place) for place, panel in enumerate([*PANELS, *own])]
    model = {
        "title": "Noobly",
        "uid": "noobly",
        "tags": ["noobly"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [{"name": "source", "type": "datasource", "query": "prometheus"}]},
        "panels": panels,
    }
    return json.dumps(model, indent=2) + "\n"


def alerts(heads: Iterable[Head]) -> str:
    """Return Prometheus alert rules as YAML.

    Args:
        heads: What the families of an application say of themselves.

    Raises:
        Internal: An alert names a metric that is not declared.
    """
    _check(names_in(alert.expr for alert in ALERTS), [*heads, LAG, PAUSES, WORKERS, ENDS])
    lines = ["groups:", "  - name: noobly", "    rules:"]
    for alert in ALERTS:
        lines += [
            f"      - alert: {alert.name}",
            f"        expr: {json.dumps(alert.expr)}",
            f"        for: {alert.lasting}",
            "        labels:",
            f"          severity: {alert.severity}",
            "        annotations:",
            f"          summary: {json.dumps(alert.summary)}",
            f"          description: {json.dumps(alert.action)}",
        ]
    return "\n".join(lines) + "\n"


def names_in(expressions: Iterable[str]) -> frozenset[str]:
    """Return the metrics that PromQL expressions name."""
    return frozenset(name for expr in expressions for name in _NAME.findall(expr))


def _check(names: frozenset[str], declared: Sequence[Head]) -> None:
    known = _FOREIGN.union(*map(_samples, declared))
    if missing := names - known:
        raise Internal(f"rules name metrics that are not declared: {', '.join(sorted(missing))}")


def _samples(head: Head) -> frozenset[str]:
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "summary": ("_count", "_sum")}
    return frozenset(f"{head.name}{suffix}" for suffix in suffixes.get(head.type, ("",)))


def _unique(heads: Iterable[Head]) -> list[Head]:
    return sorted({head.name: head for head in heads}.values(), key=lambda head: head.name)


def _panel_of(head: Head) -> Panel:
    legend = " ".join(f"{{{{{label}}}}}" for label in head.labels) or head.name
    group = f" by ({', '.join(head.labels)})" if head.labels else ""
    if head.type == "histogram":
        return Panel(head.name, _unit(head), _quantiles(head.name, ""), head.text)
    if head.type == "gauge":
        how = "sum" if head.merge is Merge.SUM else "max"
        return Panel(head.name, _unit(head), _by(f"{how}{group} ({head.name})", legend), head.text)
    name = f"{head.name}_total" if head.type == "counter" else f"{head.name}_count"
    return Panel(name, "cps", _by(f"sum{group} (rate({name}[{_WINDOW}]))", legend), head.text)


def _unit(head: Head) -> str:
    return {"seconds": "s", "bytes": "bytes", "ratio": "percentunit"}.get(head.name.rpartition("_")[2], "short")


def _grafana(panel: Panel, place: int) -> dict[str, object]:
    row, column = divmod(place, _COLUMNS)
    source = {"type": "prometheus", "uid": "${source}"}
    targets = [
        {"refId": chr(ord("A") + number), "expr": query.expr, "legendFormat": query.legend, "datasource": source}
        for number, query in enumerate(panel.queries)
    ]
    return {
        "id": place + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.text,
        "datasource": source,
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": targets,
    }
