"""Brings an answer to the scheduler: inside the report when it is small, by an upload of its own when it is large.

The outcome never waits for long on the answer and is never lost because of it: when the upload cannot be made, the
report carries the first bytes and a warning.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from libs.common.clock import Clock
from libs.common.errors import PunctualError, UnavailableError
from libs.common.logs import get_logger
from libs.common.supervised_loop import Backoff
from services.executor.domain.answer import Answer, AnswerSource
from services.executor.domain.attempt import Lease
from services.executor.domain.report import ReportedResponse
from services.executor.usecases.ports import AttemptService

log = get_logger(__name__)

_BACKOFF = Backoff(first_seconds=0.1, most_seconds=2.0)


class AnswerDelivery:
    """Makes reported responses out of answers."""

    def __init__(self, service: AttemptService, clock: Clock, patience_seconds: float) -> None:
        self._service = service
        self._clock = clock
        self._patience = patience_seconds

    async def deliver(self, lease: Lease, answer: Answer) -> ReportedResponse:
        """Return the answer as the report is to carry it, after its upload if it needs one; lets go of its bytes."""
        whole = _reported(answer)
        if answer.source is None:
            return whole
        try:
            blob_id = await self._upload(lease, answer.encoding, answer.source)
        except PunctualError as error:
            log.warning("answer.upload_failed", execution_id=lease.execution_id, reason=error.reason)
            return self.head_only(answer, "the answer could not be stored; only its first bytes are kept")
        finally:
            answer.source.close()
        return replace(whole, blob_id=blob_id, head=answer.head)

    def head_only(self, answer: Answer, warning: str) -> ReportedResponse:
        """Return an answer whose upload was not made: its first bytes, flagged as cut."""
        return replace(
            _reported(answer),
            body=answer.head,
            encoding="",
            stored_size_bytes=len(answer.head),
            truncated=True,
            sha256=hashlib.sha256(answer.head).digest(),
            warning=warning,
        )

    async def _upload(self, lease: Lease, encoding: str, source: AnswerSource) -> str:
        """Upload, and upload again while the scheduler is away and there is patience left.

        Raises:
            PunctualError: the upload was not made.
        """
        give_up, failures = self._clock.monotonic() + self._patience, 0
        while True:
            try:
                return await self._service.upload(lease, encoding, source)
            except UnavailableError:
                failures += 1
                wait = _BACKOFF.wait_seconds(failures)
                if self._clock.monotonic() + wait >= give_up:
                    raise
            await self._clock.sleep(wait)


def _reported(answer: Answer) -> ReportedResponse:
    return ReportedResponse(
        headers=answer.headers,
        content_type=answer.content_type,
        body=answer.body,
        encoding=answer.encoding,
        stored_size_bytes=answer.stored_size_bytes,
        total_size_bytes=answer.total_size_bytes,
        truncated=answer.truncated,
        sha256=answer.sha256,
        warning=answer.warning,
    )
