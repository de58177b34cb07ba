"""How domain values are stored: plain BSON documents, every field written, so that a changed default in the code never
changes what a stored job means. Spans are whole milliseconds, enums their values, wall-clock times ISO text, rules
tagged by their kind.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from datetime import datetime, time, timedelta
from functools import lru_cache
from typing import Any, TypeVar

from cattrs import Converter
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from services.scheduler.domain.execution import Attempt, Execution, StoredResponse
from services.scheduler.domain.job import (
    CallbackPolicy,
    CatchUpPolicy,
    Header,
    JobDefinition,
    RateLimitPolicy,
    ResponsePolicy,
    RetryPolicy,
    TimeoutPolicy,
)
from services.scheduler.domain.schedule import Cron, Daily, Monthly, OneTimeAt, OneTimeLocal, Rule, Schedule, Weekly
from services.scheduler.usecases.audit import AuditEvent, FieldChange

Document = dict[str, Any]
_T = TypeVar("_T")

_MILLISECOND = timedelta(milliseconds=1)
_RULES: Mapping[str, type[Any]] = {
    "one_time_at": OneTimeAt,
    "one_time_local": OneTimeLocal,
    "daily": Daily,
    "weekly": Weekly,
    "monthly": Monthly,
    "cron": Cron,
}
_SHARED = (CatchUpPolicy, RateLimitPolicy, RetryPolicy, TimeoutPolicy)
"""Small parts that most jobs have in common: encoded once, and the document shared. Nobody may change what `encode`
returns below its top level."""

_ALIKE = (*_SHARED, CallbackPolicy, Schedule)
"""Parts that are decoded once for each of their contents, and the value shared: no value can be changed. They are most
of what decoding a job costs, and a job is decoded twice for each execution."""

_REMEMBERED = 1024
_KINDS = {rule: kind for kind, rule in _RULES.items()}


class Codec:
    """Turns domain values into documents and back. Make one for each store; it compiles its code on first use."""

    def __init__(self) -> None:
        self._converter = _converter()

    def encode(self, value: object) -> Document:
        """Return the document of a definition, an execution, an attempt or a response."""
        document: Document = self._converter.unstructure(value)
        return document

    def decode(self, document: Mapping[str, Any], kind: type[_T]) -> _T:
        """Return the value that a document holds; unknown fields are passed over, missing ones take their default."""
        return self._converter.structure(document, kind)


def _converter() -> Converter:
    converter = Converter(detailed_validation=False)
    # BSON holds instants itself (aware, UTC, milliseconds); a OneTimeLocal's wall clock is no instant.
    converter.register_unstructure_hook(datetime, lambda instant: instant)
    converter.register_structure_hook(datetime, lambda instant, _: instant)
    converter.register_unstructure_hook(timedelta, lambda span: span // _MILLISECOND)
    converter.register_structure_hook(timedelta, lambda millis, _: timedelta(milliseconds=millis))
    converter.register_unstructure_hook(time, lambda wall: wall.isoformat(timespec="minutes"))
    converter.register_structure_hook(time, lambda text, _: time.fromisoformat(text))
    converter.register_structure_hook(bytes, lambda data, _: bytes(data))
    converter.register_unstructure_hook(OneTimeLocal, lambda rule: {"wall": rule.wall.isoformat()})
    converter.register_structure_hook(
        OneTimeLocal, lambda document, _: OneTimeLocal(datetime.fromisoformat(document["wall"]))
    )
    converter.register_structure_hook(Rule, lambda document, _: _decode_rule(converter, document))
    encode_schedule = make_dict_unstructure_fn(
        Schedule, converter, rule=override(unstruct_hook=lambda rule: _encode_rule(converter, rule))
    )
    converter.register_unstructure_hook(Schedule, lru_cache(_REMEMBERED)(encode_schedule))
    for shared in _SHARED:
        converter.register_unstructure_hook(shared, lru_cache(_REMEMBERED)(make_dict_unstructure_fn(shared, converter)))
    converter.register_unstructure_hook(
        FieldChange, lambda change: {"path": change.path, "before": change.before, "after": change.after}
    )
    # Most headers are no secrets.
    converter.register_unstructure_hook(
        Header, make_dict_unstructure_fn(Header, converter, sealed=override(omit_if_default=True))
    )
    for alike in _ALIKE:
        converter.register_structure_hook(alike, _remembering(make_dict_structure_fn(alike, converter)))
    # Checks may be large, and memory must not depend on what callers send.
    decode_checks = make_dict_structure_fn(ResponsePolicy, converter)
    decode_plain = _remembering(decode_checks)
    converter.register_structure_hook(
        ResponsePolicy,
        lambda document, kind: (decode_checks if document.get("checks") else decode_plain)(document, kind),
    )
    # Executions are many: what holds its default is left out, for only the scheduler itself writes them.
    for kind in (Attempt, StoredResponse):
        converter.register_unstructure_hook(
            kind, make_dict_unstructure_fn(kind, converter, _cattrs_omit_if_default=True)
        )
    converter.register_unstructure_hook(
        Execution,
        make_dict_unstructure_fn(
            Execution,
            converter,
            _cattrs_omit_if_default=True,
            execution_id=override(rename="_id"),
            # Compare-and-set filters on these, so they are stored even while they hold their default.
            state=override(omit_if_default=False),
            fencing_token=override(omit_if_default=False),
            attempt_number=override(omit_if_default=False),
        ),
    )
    converter.register_structure_hook(
        Execution, make_dict_structure_fn(Execution, converter, execution_id=override(rename="_id"))
    )
    converter.register_structure_hook(JobDefinition, make_dict_structure_fn(JobDefinition, converter))
    converter.register_unstructure_hook(
        AuditEvent, make_dict_unstructure_fn(AuditEvent, converter, event_id=override(rename="_id"))
    )
    converter.register_structure_hook(
        AuditEvent, make_dict_structure_fn(AuditEvent, converter, event_id=override(rename="_id"))
    )
    return converter


def _remembering(decode: Callable[[Mapping[str, Any], Any], _T]) -> Callable[[Mapping[str, Any], Any], _T]:
    known: dict[Hashable, _T] = {}

    def remembered(document: Mapping[str, Any], kind: Any) -> _T:
        key = _content(document)
        value = known.get(key)
        if value is None:
            if len(known) >= _REMEMBERED:
                known.clear()
            value = known[key] = decode(document, kind)
        return value

    return remembered


def _content(value: object) -> Hashable:
    """Return what equals only for documents that are equal in values and in their types."""
    if isinstance(value, dict):
        return tuple([(key, _content(item)) for key, item in value.items()])
    if isinstance(value, list):
        return (list, *[_content(item) for item in value])
    # True equals 1, and 1.0, as a key.
    return (type(value), value) if isinstance(value, bool | float) else value


def _encode_rule(converter: Converter, rule: Rule) -> Document:
    return {"kind": _KINDS[type(rule)], **converter.unstructure(rule)}


def _decode_rule(converter: Converter, document: Mapping[str, Any]) -> Rule:
    rule: Rule = converter.structure(document, _RULES[document["kind"]])
    return rule
