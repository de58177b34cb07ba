"""Makes commands of async functions.

A command's first parameter is its session. A parameter whose type is a dataclass stands for a group of flags, one for
each field: several commands share such a group without repeating it.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, get_type_hints

import typer

from libs.client.cli.session import CallFlags, Session, run

Body = Callable[..., Awaitable[None]]


def command_group(text: str, commands: Mapping[str, Body]) -> typer.Typer:
    """Return a group of commands; `text` and the docstring of each body are the help."""
    group = typer.Typer(help=text, no_args_is_help=True)
    for name, body in commands.items():
        group.command(name)(_as_typer_takes_it(body))
    return group


def _as_typer_takes_it(body: Body) -> Callable[..., None]:
    """Return a plain function with a parameter for each flag, which runs the body in a session."""
    types = get_type_hints(body, include_extras=True)
    own = [parameter.replace(annotation=types[parameter.name]) for parameter in _parameters(body)]

    def invoke(**values: Any) -> None:
        arguments = {parameter.name: _take(parameter, values) for parameter in own}
        run(_group_of(CallFlags, values), lambda session: body(session, **arguments))

    flags = [flag for parameter in own for flag in _flags(parameter)] + _fields(CallFlags)
    invoke.__doc__ = inspect.getdoc(body)
    invoke.__annotations__ = {flag.name: flag.annotation for flag in flags}
    invoke.__signature__ = inspect.Signature(flags)  # type: ignore[attr-defined] # what inspect looks for
    return invoke


def _parameters(body: Body) -> list[inspect.Parameter]:
    """Return a body's parameters after its session."""
    session, *others = inspect.signature(body).parameters.values()
    if session.name != "session":
        raise TypeError(f"the first parameter of {body.__name__} is not its {Session.__name__}")
    return others


def _flags(parameter: inspect.Parameter) -> Iterator[inspect.Parameter]:
    if dataclasses.is_dataclass(parameter.annotation):
        yield from _fields(parameter.annotation)
    else:
        yield parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)


def _fields(group: Any) -> list[inspect.Parameter]:
    types = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=_default(field), annotation=types[field.name]
        )
        for field in dataclasses.fields(group)
    ]


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default


def _take(parameter: inspect.Parameter, values: dict[str, Any]) -> Any:
    if dataclasses.is_dataclass(parameter.annotation):
        return _group_of(parameter.annotation, values)
    return values[parameter.name]


def _group_of(group: Any, values: dict[str, Any]) -> Any:
    return group(**{field.name: values[field.name] for field in dataclasses.fields(group)})
