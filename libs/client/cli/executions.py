"""`punctual executions`: what ran, what runs, and what came of it."""

from __future__ import annotations

import sys
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from libs.client.cli.choices import (
    ExecutionCause,
    ExecutionState,
    execution_causes,
    execution_states,
)
from libs.client.cli.execution_views import CHANGE_ROW, EXECUTION_CARD, EXECUTION_ROW, RESPONSE_CARD
from libs.client.cli.flag_values import moment
from libs.client.cli.listing import Limit, listed
from libs.client.cli.session import Session

ExecutionId = Annotated[str, typer.Argument(help="The execution's id.", metavar="EXECUTION")]
ExecutionIds = Annotated[list[str], typer.Argument(help="The executions' ids.", metavar="EXECUTION...")]


@dataclass(frozen=True)
class ScopeFlags:
    """Whose executions."""

    job: Annotated[str, typer.Option(help="Only this job's.")] = ""
    project: Annotated[str, typer.Option(help="Only this project's.")] = ""
    state: Annotated[
        list[ExecutionState], typer.Option(case_sensitive=False, help="Only this state; may be repeated.")
    ] = field(default_factory=list)


@dataclass(frozen=True)
class HistoryFlags:
    """Which of them are listed."""

    cause: Annotated[
        list[ExecutionCause], typer.Option(case_sensitive=False, help="Only this cause; may be repeated.")
    ] = field(default_factory=list)
    since: Annotated[
        str | None, typer.Option(help="Only fire times from then on: RFC 3339, or 2h ago.", metavar="TIME")
    ] = None
    until: Annotated[str | None, typer.Option(help="Only fire times before: RFC 3339, or 2h ago.", metavar="TIME")] = (
        None
    )
    trace_id: Annotated[str, typer.Option(help="Only the execution with this trace.")] = ""


async def list_executions(session: Session, scope: ScopeFlags, only: HistoryFlags, limit: Limit = 50) -> None:
    """List executions, latest fire first."""
    executions = session.client.executions.list(
        job_id=scope.job,
        project_id=scope.project,
        states=execution_states(scope.state),
        causes=execution_causes(only.cause),
        fire_after=moment(only.since, "--since"),
        fire_before=moment(only.until, "--until"),
        trace_id=only.trace_id,
        page_size=listed(limit),
    )
    await session.printer.show_all(executions, EXECUTION_ROW, limit=limit)


async def get(session: Session, executions: ExecutionIds) -> None:
    """Show executions with their attempts."""
    await session.for_each(executions, session.client.executions.get, EXECUTION_CARD)


async def watch(
    session: Session,
    scope: ScopeFlags,
    resume_token: Annotated[str, typer.Option(help="Continue after the change with this token.")] = "",
    count: Annotated[int, typer.Option(min=0, help="End after so many changes; 0: never.")] = 0,
) -> None:
    """Show changes as they happen, until Ctrl-C; outages of the server are bridged."""
    changes = session.client.executions.watch(
        job_id=scope.job, project_id=scope.project, states=execution_states(scope.state), resume_token=resume_token
    )
    shown = 0
    async with aclosing(changes):
        async for change in changes:
            session.printer.show_live(change, CHANGE_ROW)
            shown += 1
            if shown == count:
                return


async def cancel(
    session: Session,
    executions: ExecutionIds,
    note: Annotated[str, typer.Option(help="Why.")] = "",
) -> None:
    """Stop executions: waiting ones at once, running ones as soon as their executor hears of it."""
    await session.for_each(executions, lambda item: session.client.executions.cancel(item, note=note), EXECUTION_CARD)


async def retry(
    session: Session,
    execution_id: ExecutionId,
    idempotency_key: Annotated[str, typer.Option(help="The same key starts one execution.")] = "",
) -> None:
    """Start an execution that repeats a final one."""
    execution = await session.client.executions.retry(execution_id, idempotency_key=idempotency_key)
    session.printer.show(execution, EXECUTION_CARD)


async def response(
    session: Session,
    execution_id: ExecutionId,
    to: Annotated[
        Path | None, typer.Option(help="Write to this file instead of stdout.", metavar="FILE", dir_okay=False)
    ] = None,
) -> None:
    """Write the stored answer, byte for byte as the target sent it."""
    if to is None:
        async with aclosing(session.client.executions.download(execution_id)) as chunks:
            async for chunk in chunks:
                sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        return
    try:
        description = await session.client.executions.download_to(execution_id, to)
    except OSError as error:
        raise typer.BadParameter(f"cannot write {to}: {error.strerror}", param_hint="--to") from error
    session.printer.show(description, RESPONSE_CARD)
