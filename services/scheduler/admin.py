"""`python -m services.scheduler.admin`: what must be done before anybody can call the API.

    migrate
    create-api-key --org ORG --name NAME --scopes SCOPE,... [--projects ID,...] [--expire-days N]
    key-status

It writes to the database directly, so whoever may run it has the database's credentials already; it is the only way to
a key with the scope `operator`. The key is printed once, alone on stdout, and stored hashed. `migrate` does what every
scheduler does when it starts, but waits for long index builds: run it before a rollout. `key-status` counts the
documents whose secrets need each key of the key ring: one under which nothing is counted may be taken out.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from datetime import timedelta

import pymongo
from pymongo.errors import OperationFailure

from libs.common.clock import Clock, SystemClock
from libs.common.errors import PunctualError
from libs.common.exception_text import describe
from libs.common.settings import load_settings
from services.scheduler.adapters.mongo.api_key_store import MongoApiKeyStore
from services.scheduler.adapters.mongo.audit_outbox import AuditOutbox
from services.scheduler.adapters.mongo.connection import open_client, translate_error
from services.scheduler.adapters.mongo.key_rotation import count_by_key
from services.scheduler.adapters.mongo.migrations import bind_documents, migrate
from services.scheduler.settings import DatabaseSettings
from services.scheduler.usecases.api_keys import CreateApiKey, CreatedApiKey, NewApiKey
from services.scheduler.usecases.caller import ORG_ID, Caller, OrgScope, Permission

SUBJECT = "punctual-admin"
"""The creator of keys that are made here."""
EXIT_REFUSED = 1
MAX_DAYS = 36_500
MIGRATION_SECONDS = 6 * 3600.0
"""An index over all executions takes as long as it takes; the client's usual limit of seconds would cut it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the process's exit code."""
    options = _parser().parse_args(arguments)
    settings = load_settings(DatabaseSettings)
    try:
        asyncio.run(options.command(settings, options))
    except Exception as error:
        known = error if isinstance(error, PunctualError) else translate_error(error)
        if known is None and not isinstance(error, OperationFailure):
            raise
        # What the database itself refuses, wrong credentials above all, concerns whoever called.
        sys.stderr.write(f"{known.message if known else describe(error)}\n")
        return EXIT_REFUSED
    return 0


async def _migrate(settings: DatabaseSettings, _options: argparse.Namespace) -> None:
    client = open_client(settings.mongodb_uri.get_secret_value())
    try:
        # A database that is away is told within the client's usual limit, before the long one begins.
        await client.admin.command("ping")
        with pymongo.timeout(MIGRATION_SECONDS):
            await migrate(client[settings.mongodb_database])
    finally:
        await client.close()
    sys.stderr.write(f"the database {settings.mongodb_database!r} is up to date\n")


async def _key_status(settings: DatabaseSettings, _options: argparse.Namespace) -> None:
    client = open_client(settings.mongodb_uri.get_secret_value())
    try:
        await bind_documents(client[settings.mongodb_database])
        counts = await count_by_key()
    finally:
        await client.close()
    for collection, by_key in counts.items():
        for key_id, documents in sorted(by_key.items()):
            sys.stdout.write(f"{key_id}\t{collection}\t{documents}\n")


async def _create_api_key(settings: DatabaseSettings, options: argparse.Namespace) -> None:
    created = await _created_api_key(settings, options)
    sys.stderr.write(f"created {created.key.key_id}; this is the only time that the key is shown:\n")
    sys.stdout.write(f"{created.token}\n")


async def _created_api_key(settings: DatabaseSettings, options: argparse.Namespace) -> CreatedApiKey:
    clock: Clock = SystemClock()
    client = open_client(settings.mongodb_uri.get_secret_value())
    try:
        await bind_documents(client[settings.mongodb_database])
        create = CreateApiKey(MongoApiKeyStore(AuditOutbox()), clock, grantable=frozenset(Permission))
        return await create(
            Caller(SUBJECT, OrgScope(options.org), frozenset(Permission), method="admin.create-api-key"),
            NewApiKey(
                name=options.name,
                scopes=frozenset(options.scopes),
                project_ids=frozenset(options.projects) or None,
                expire_time=clock.now() + timedelta(days=options.expire_days) if options.expire_days else None,
            ),
        )
    finally:
        await client.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.scheduler.admin", description=__doc__.split("\n", 1)[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("migrate", help="bring the database to what this version needs").set_defaults(command=_migrate)
    commands.add_parser("key-status", help="count what each encryption key is needed for").set_defaults(
        command=_key_status
    )
    create = commands.add_parser("create-api-key", help="create an API key and print it")
    create.set_defaults(command=_create_api_key)
    create.add_argument("--org", required=True, type=_org_id, help="the org that the key speaks for")
    create.add_argument("--name", required=True, help="what people call the key")
    create.add_argument("--scopes", required=True, type=_names, help=", ".join(Permission))
    create.add_argument("--projects", default=[], type=_names, help="the projects it may touch; default: all")
    create.add_argument("--expire-days", default=0, type=_days, help="when it stops to work; default: never")
    return parser


def _org_id(text: str) -> str:
    if not ORG_ID.fullmatch(text):
        raise argparse.ArgumentTypeError("must be 1 to 64 characters of A-Z, a-z, 0-9, _, . and -")
    return text


def _days(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_DAYS:
        raise argparse.ArgumentTypeError(f"must be 1 to {MAX_DAYS:,}")
    return int(text)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


if __name__ == "__main__":
    raise SystemExit(main())
