"""What every command shares: how to reach the server, how to print, and how failures end.

A failure is a line or a few on stderr and an exit code, never a traceback; with `--output json` it is one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from google.protobuf.message import Message

from libs.client.cli.exit_codes import ExitCode, exit_code_of
from libs.client.cli.output import Column, OutputFormat, Printer
from libs.client.cli.wording import harmless
from libs.client.client import PunctualClient, PunctualServices
from libs.client.credentials import BearerToken, Credentials, TokenFile
from libs.client.request_ids import request_id_of
from libs.client.transport import Tls
from libs.common.errors import InvalidArgumentError, PunctualError, RetryableError

PANEL = "Connection and output"
TOKEN_VARIABLE = "PUNCTUAL_TOKEN"  # noqa: S105 - the variable's name

M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class CallFlags:
    """The flags that every command takes. The token has no flag: a command line is seen by all of the machine."""

    address: Annotated[
        str, typer.Option(envvar="PUNCTUAL_ADDRESS", help="The server, host:port.", rich_help_panel=PANEL)
    ] = "127.0.0.1:7400"
    token_file: Annotated[
        Path | None,
        typer.Option(
            envvar="PUNCTUAL_TOKEN_FILE",
            help="A file with the API key or JWT; else the variable PUNCTUAL_TOKEN holds it.",
            rich_help_panel=PANEL,
        ),
    ] = None
    org: Annotated[
        str,
        typer.Option(
            envvar="PUNCTUAL_ORG", help="The org: in development mode, and for operators.", rich_help_panel=PANEL
        ),
    ] = ""
    ca_file: Annotated[
        Path | None,
        typer.Option(envvar="PUNCTUAL_CA_FILE", help="PEM certificates to know the server by.", rich_help_panel=PANEL),
    ] = None
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Speak plaintext, also to other machines.", rich_help_panel=PANEL),
    ] = False
    deadline: Annotated[
        float, typer.Option(min=0.1, help="Seconds that a call may take with its retries.", rich_help_panel=PANEL)
    ] = 10.0
    output: Annotated[
        OutputFormat,
        typer.Option("--output", "-o", help="For people, for programs, or ids only.", rich_help_panel=PANEL),
    ] = OutputFormat.TABLE

    def open_client(self) -> PunctualClient:
        """Return the client; inside a running event loop.

        Raises:
            typer.BadParameter: a file that cannot be read, an org that cannot be one, or flags that exclude each other.
        """
        if self.insecure and self.ca_file:
            raise typer.BadParameter("--insecure and --ca-file exclude each other")
        tls = False if self.insecure else Tls(self.ca_file) if self.ca_file else None
        try:
            return PunctualClient(
                self.address, credentials=self._credentials(), org=self.org, tls=tls, deadline_seconds=self.deadline
            )
        except OSError as error:
            raise typer.BadParameter(f"cannot read {error.filename}: {error.strerror}") from error
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--org") from error

    def _credentials(self) -> Credentials | None:
        if self.token_file:
            return TokenFile(self.token_file)
        token = os.environ.get(TOKEN_VARIABLE)
        return BearerToken(token) if token else None


@dataclass(slots=True)
class Session:
    """One run of a command: the services to call, where to print, and how it will end."""

    client: PunctualServices
    printer: Printer
    output: OutputFormat
    exit_code: ExitCode = ExitCode.OK

    def failed(self, error: PunctualError) -> None:
        """Report a failure; the first one decides the exit code."""
        for line in _failure_lines(error, self.output):
            sys.stderr.write(f"{line}\n")
        self.exit_code = self.exit_code or exit_code_of(error)

    async def for_each(
        self, ids: Iterable[str], call: Callable[[str], Awaitable[M]], card: Sequence[Column[M]]
    ) -> None:
        """Make one call for each id and show its answer; a failure of one does not keep the others from their turn."""
        for item in ids:
            try:
                self.printer.show(await call(item), card)
            except PunctualError as error:
                self.failed(error)


def run(flags: CallFlags, body: Callable[[Session], Awaitable[None]]) -> None:
    """Run a command's body with a session.

    Raises:
        typer.Exit: it ended otherwise than well.
        typer.BadParameter: an argument that is no text.
    """
    try:
        code = asyncio.run(_run(flags, body))
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough, such as `head`.
        _forget_stdout()
        code = ExitCode.OK
    except OSError as error:
        # A full disk, mostly. What was asked for may have been done.
        _forget_stdout()
        sys.stderr.write(f"cannot write the answer: {error.strerror}\n")
        code = ExitCode.REFUSED
    except UnicodeEncodeError as error:
        # Bytes of the command line that are not UTF-8 are surrogates here, which no message can hold.
        if error.encoding != "utf-8":
            raise
        raise typer.BadParameter(f"{error.object!r} is not UTF-8 text") from error
    if code:
        raise typer.Exit(code)


def _forget_stdout() -> None:
    """Let what stdout still holds go nowhere: Python would try to write it, and complain once more, while it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def _run(flags: CallFlags, body: Callable[[Session], Awaitable[None]]) -> ExitCode:
    async with flags.open_client() as client:
        session = Session(client, Printer(flags.output), flags.output)
        try:
            await body(session)
        except PunctualError as error:
            session.failed(error)
        return session.exit_code


def _failure_lines(error: PunctualError, output: OutputFormat) -> list[str]:
    if output is OutputFormat.JSON:
        return [json.dumps(_failure_object(error))]
    if isinstance(error, InvalidArgumentError):
        lines = [f"{error.code.name} {item.field}: {item.description} ({item.reason})" for item in error.violations]
    else:
        # Errors that gRPC itself made have no other reason than their code.
        reason = "" if error.reason == error.code.name else f" {error.reason}"
        lines = [f"{error.code.name}{reason}: {error.message}"]
    if isinstance(error, RetryableError) and error.retry_after_seconds:
        lines.append(f"try again in {error.retry_after_seconds:.1f} s")
    if request_id := request_id_of(error):
        lines.append(f"request id {request_id}")
    return [harmless(line) for line in lines]


def _failure_object(error: PunctualError) -> dict[str, object]:
    failure: dict[str, object] = {
        "code": error.code.name,
        "reason": error.reason,
        "message": error.message,
        "requestId": request_id_of(error),
    }
    if isinstance(error, InvalidArgumentError):
        failure["fields"] = [
            {"field": item.field, "reason": item.reason, "description": item.description} for item in error.violations
        ]
    if isinstance(error, RetryableError) and error.retry_after_seconds is not None:
        failure["retryAfterSeconds"] = error.retry_after_seconds
    return failure
