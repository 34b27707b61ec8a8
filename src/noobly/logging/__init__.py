"""Logging: structured records with correlation and redaction, stored without delay to the caller, and searched."""

from noobly.core.correlation import bind, carried, correlated, correlation_id
from noobly.logging.capture import StructlogSink
from noobly.logging.driver import Count
from noobly.logging.entries import Entry, LogPage
from noobly.logging.logger import Logger
from noobly.logging.logs import Logs
from noobly.logging.opening import open_logs
from noobly.logging.options import Format, LogsOptions, Overflow
from noobly.logging.record import ExceptionInfo, Level, Record

__all__ = [
    "Count",
    "Entry",
    "ExceptionInfo",
    "Format",
    "Level",
    "LogPage",
    "Logger",
    "Logs",
    "LogsOptions",
    "Overflow",
    "Record",
    "StructlogSink",
    "bind",
    "carried",
    "correlated",
    "correlation_id",
    "open_logs",
]
