"""Writes answers: tables and cards for people, one line of protobuf JSON for each message for programs, or bare ids.

Progress and remarks go to stderr, so that stdout is always just the answer.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import AsyncIterable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from libs.client.cli.wording import harmless

PIPE_WIDTH = 400
"""Wide enough that nothing is cut where there is no terminal whose width matters."""

M = TypeVar("M", bound=Message)
N = TypeVar("N", bound=Message)


class OutputFormat(enum.StrEnum):
    """How answers are written."""

    TABLE = "table"
    JSON = "json"
    ID = "id"


@dataclass(frozen=True, slots=True)
class Column(Generic[M]):
    """One column of a table, or one line of a card; the first of a row is its id."""

    title: str
    value: Callable[[M], str]


def within(outer: Callable[[N], M], columns: Sequence[Column[M]]) -> list[Column[N]]:
    """Return columns for a message that carries the other one inside."""

    def nested(column: Column[M]) -> Column[N]:
        return Column(column.title, lambda message: column.value(outer(message)))

    return [nested(column) for column in columns]


class Printer:
    """Writes to the command's stdout and stderr in the format that was asked for."""

    def __init__(self, output_format: OutputFormat) -> None:
        self._format = output_format
        self._terminal = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False, soft_wrap=False)
        self._remarks = Console(stderr=True, highlight=False)

    def show(self, message: M, card: Sequence[Column[M]]) -> None:
        """Write one message."""
        if self._format is not OutputFormat.TABLE:
            self._write_line(message, card)
            return
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for line in card:
            table.add_row(line.title, Text(harmless(line.value(message))))
        self._terminal.print(table)

    async def show_all(self, messages: AsyncIterable[M], columns: Sequence[Column[M]], *, limit: int = 0) -> None:
        """Write a list, up to a limit; that there is more is remarked. JSON comes line by line, a table at the end."""
        rows: list[M] = []
        count = 0
        async for message in messages:
            if limit and count == limit:
                self.remark(f"there are more than {limit}; --limit 0 shows all")
                break
            count += 1
            if self._format is OutputFormat.TABLE:
                rows.append(message)
            else:
                self._write_line(message, columns)
        if self._format is OutputFormat.TABLE:
            self.show_list(rows, columns)

    def show_list(self, messages: Sequence[M], columns: Sequence[Column[M]]) -> None:
        """Write a list that is there as a whole."""
        if self._format is OutputFormat.TABLE:
            self._terminal.print(_table(messages, columns))
            return
        for message in messages:
            self._write_line(message, columns)

    def show_live(self, message: M, columns: Sequence[Column[M]]) -> None:
        """Write one message of a stream at once, as a line."""
        if self._format is OutputFormat.TABLE:
            line = "  ".join(column.value(message) for column in columns)
            print(harmless(line).replace("\n", " "), flush=True)
        else:
            self._write_line(message, columns)

    def remark(self, text: str) -> None:
        """Say something to people that is not part of the answer."""
        self._remarks.print(Text(harmless(text)))

    def progress(self, total: int | None) -> Progress:
        """Return a progress bar on stderr, shown on terminals only."""
        count = MofNCompleteColumn() if total is not None else TextColumn("{task.completed}")
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), count)
        return Progress(*columns, console=self._remarks, transient=True, disable=not self._remarks.is_terminal)

    def _write_line(self, message: M, columns: Sequence[Column[M]]) -> None:
        text = columns[0].value(message) if self._format is OutputFormat.ID else to_json(message)
        print(text, flush=True)


def to_json(message: Message) -> str:
    """Return protobuf JSON on one line, control characters escaped."""
    return json_format.MessageToJson(message, indent=None)


def _table(rows: Sequence[M], columns: Sequence[Column[Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for position, column in enumerate(columns):
        # An id that is cut is of no use.
        table.add_column(column.title.upper(), no_wrap=True, overflow="fold" if position == 0 else "ellipsis")
    for row in rows:
        table.add_row(*(Text(harmless(column.value(row)).replace("\n", " ")) for column in columns))
    return table
