"""What a Python service imports to use Punctual: `PunctualClient`, and constructors for jobs and schedules.

    async with PunctualClient("punctual.example.com:443", credentials=TokenFile(path)) as client:
        job = new_job("Mondays", prompt="Plan the week.", url=url, schedule=weekly(["mon"], "09:00", "Europe/Berlin"))
        created = await client.jobs.create(job)

Messages are those of `punctual.v1`; every failure is a `PunctualError` of `libs.common.errors`. docs/api.md walks
through all of it.
"""

from libs.client.client import PunctualClient, PunctualServices
from libs.client.credentials import BearerToken, Credentials, TokenFile
from libs.client.definitions import new_job
from libs.client.paging import Paged
from libs.client.request_ids import request_id_of
from libs.client.retry_policy import RetryPolicy
from libs.client.schedules import at, bounded, cron, daily, monthly, weekly
from libs.client.transport import Tls

__all__ = [
    "BearerToken",
    "Credentials",
    "Paged",
    "PunctualClient",
    "PunctualServices",
    "RetryPolicy",
    "Tls",
    "TokenFile",
    "at",
    "bounded",
    "cron",
    "daily",
    "monthly",
    "new_job",
    "request_id_of",
    "weekly",
]
