"""The tree of commands, and the entry point."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from libs.client.cli import executions, job_files, job_states, jobs, org
from libs.client.cli.commands import command_group

EPILOG = "Exit codes: 0 done, 1 refused, 2 wrong usage, 3 not found, 4 no answer, 5 not allowed. Guide: docs/api.md."


def build() -> typer.Typer:
    """Return the command with all its groups."""
    app = typer.Typer(
        name="punctual",
        epilog=EPILOG,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    app.callback()(_common)
    app.add_typer(_jobs(), name="jobs")
    app.add_typer(_executions(), name="executions")
    app.add_typer(
        command_group(
            "API keys of the org.", {"create": org.create_key, "list": org.list_keys, "revoke": org.revoke_key}
        ),
        name="keys",
    )
    app.add_typer(
        command_group(
            "Secrets that sign the org's requests.",
            {"rotate": org.rotate_secret, "list": org.list_secrets, "revoke": org.revoke_secret},
        ),
        name="secrets",
    )
    app.add_typer(command_group("Who changed what.", {"list": org.list_audit}), name="audit")
    app.add_typer(
        command_group(
            "Hosts that the jobs call.",
            {"list": org.list_targets, "reset": org.reset_target, "limit": org.limit_target},
        ),
        name="targets",
    )
    app.add_typer(command_group("Settings of the org.", {"show": org.show_org, "set": org.set_org}), name="org")
    return app


def _jobs() -> typer.Typer:
    return command_group(
        "Jobs: what to POST, where, and when.",
        {
            "create": jobs.create,
            "apply": job_files.apply,
            "get": jobs.get,
            "list": jobs.list_jobs,
            "update": jobs.update,
            "pause": job_states.pause,
            "resume": job_states.resume,
            "run": jobs.run,
            "delete": jobs.delete,
            "preview": jobs.preview,
            "explain": jobs.explain,
        },
    )


def _executions() -> typer.Typer:
    return command_group(
        "Executions: one for each fire or request.",
        {
            "list": executions.list_executions,
            "get": executions.get,
            "watch": executions.watch,
            "cancel": executions.cancel,
            "retry": executions.retry,
            "response": executions.response,
        },
    )


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"punctual {version('punctual')}")
        raise typer.Exit


def _common(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version, and end.")
    ] = False,
) -> None:
    """Schedules prompts: jobs that POST on the dot."""


def main() -> None:
    """Run the command."""
    build()()


if __name__ == "__main__":
    main()
