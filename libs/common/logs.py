"""Logs: constant event names with fields, JSON or coloured, on stdout, with secrets masked by construction.

    log = get_logger(__name__)
    log.info("execution.finished", execution_id=execution_id, lag_ms=3)

Data never goes into the event's text. The lines of libraries that use the standard `logging` take the same way.
Masking goes by the field's name (see `redact`), so a header or a prompt that is logged by mistake does not get out; it
cannot see into a sentence, which is why sentences carry no data.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any, Literal, TextIO, cast

import orjson
import structlog
from structlog.typing import EventDict, ExcInfo, FilteringBoundLogger, Processor, WrappedLogger

from libs.common.exception_text import format_exception

MASK = "***"

_SECRET_PARTS = (
    "authorization",
    "cookie",
    "secret",
    "token",
    "api_key",
    "apikey",
    "password",
    "credential",
    "private_key",
)
_SECRET_NAMES = frozenset({"headers", "body", "prompt", "query"})
# A fencing token is a counter that orders leases; it opens nothing, and a lost race cannot be explained without it.
_PUBLIC_NAMES = frozenset({"fencing_token"})
_MAX_DEPTH = 4
_SCALARS = frozenset({str, int, float, bool, type(None)})


def get_logger(name: str) -> FilteringBoundLogger:
    """Return a logger whose lines carry the module's name. Usable before `configure_logging`."""
    return cast("FilteringBoundLogger", structlog.get_logger(module=name))


def bound(**fields: object) -> AbstractContextManager[None]:
    """Add the fields to every line that this task, and the tasks it starts, log inside the `with` block."""
    return structlog.contextvars.bound_contextvars(**fields)


def get_bound(field: str) -> object:
    """Return the value of a field that `bound` added here, or None."""
    value: object = structlog.contextvars.get_contextvars().get(field)
    return value


def configure_logging(level: str, fmt: Literal["json", "console"], service: str) -> None:
    """Set up this process's logs; called once, first thing, by a composition root."""
    severity = logging.getLevelNamesMapping()[level]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _ServiceName(service),
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendering = _rendering(fmt)
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(severity),
        logger_factory=structlog.WriteLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _library_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(severity, logging.INFO), force=True)
    logging.captureWarnings(capture=True)


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Mask what must not be read in a log, by field name: credentials, headers, bodies, prompts, the query of a URL."""
    return {
        # Nearly every field of nearly every line, among them one line of each execution.
        key: value if type(value) in _SCALARS and _kind(key) == "plain" else _masked(key, value, 0)
        for key, value in event.items()
    }


def _rendering(fmt: Literal["json", "console"]) -> list[Processor]:
    if fmt == "console":
        return [
            redact,
            structlog.dev.ConsoleRenderer(colors=True, sort_keys=False, exception_formatter=_write_exception),
        ]
    format_exc_info = structlog.processors.ExceptionRenderer(_exception_text)
    return [format_exc_info, redact, structlog.processors.JSONRenderer(serializer=_dump)]


def _exception_text(exc_info: ExcInfo) -> str:
    return format_exception(exc_info[1])


def _write_exception(target: TextIO, exc_info: ExcInfo) -> None:
    target.write(f"\n{format_exception(exc_info[1])}\n")


class _ServiceName:
    """Puts the service's name on each line."""

    def __init__(self, service: str) -> None:
        self._service = service

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["service"] = self._service
        return event


def _library_name(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Name the library's logger where our own lines name the module."""
    event["module"] = event["_record"].name
    return event


def _dump(event: MutableMapping[str, Any], **_options: Any) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def _masked(key: str, value: object, depth: int) -> object:
    kind = _kind(key)
    if kind == "secret" or depth > _MAX_DEPTH:
        return MASK
    if isinstance(value, str | bytes):
        return _without_query(value) if kind == "url" and isinstance(value, str) else value
    if isinstance(value, Mapping):
        return {str(k): _masked(str(k), v, depth + 1) for k, v in value.items()}
    if isinstance(value, Sequence):
        return [_masked(key, item, depth + 1) for item in value]
    return value


@lru_cache(maxsize=1024)
def _kind(key: str) -> Literal["secret", "url", "plain"]:
    """Judge a field's name. The answers are kept, because the same few dozen names come again with every line."""
    name = key.lower().replace("-", "_")
    if name in _PUBLIC_NAMES:
        return "plain"
    if name in _SECRET_NAMES or any(part in name for part in _SECRET_PARTS):
        return "secret"
    if name.endswith(tuple(f"_{secret}" for secret in _SECRET_NAMES)):
        return "secret"
    return "url" if name in {"url", "uri"} or name.endswith(("_url", "_uri")) else "plain"


def _without_query(url: str) -> str:
    """Return scheme, host and path only: a query, a fragment and user info are where URLs carry credentials."""
    kept = url.split("#", 1)[0].split("?", 1)[0]
    scheme, separator, rest = kept.partition("://")
    if not separator:
        return kept
    authority, slash, path = rest.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"
