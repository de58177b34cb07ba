"""Secrets among a job's headers: sealed whenever a job is written, opened for a granted attempt and for nothing else.

Reads carry the sealed text along without its key, so that a list of jobs costs no decryption and a lost key costs no
read. A sealed header belongs to its org, job and header name; a write stores what it got sealed as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from libs.common.logs import get_logger
from services.scheduler.adapters.key_ring import KeyRing, UnreadableSecretError, key_id_of
from services.scheduler.domain.job import Header, Job, JobDefinition

log = get_logger(__name__)


class HeaderSecrets:
    """Seals and opens the sensitive headers of jobs. Implements `SecretOpener`."""

    def __init__(self, key_ring: KeyRing) -> None:
        self._ring = key_ring

    def seal(self, org_id: str, job_id: str, definition: JobDefinition) -> JobDefinition:
        """Return the definition without any secret in clear."""
        headers = definition.target.headers
        if not any(header.sensitive and not header.sealed for header in headers):
            return definition
        return _with_headers(
            definition,
            [
                replace(header, value="", sealed=self._ring.seal(header.value, *_place(org_id, job_id, header)))
                if header.sensitive and not header.sealed
                else header
                for header in headers
            ],
        )

    def open(self, job: Job) -> Job | None:
        """Return the job with its secrets in clear; None when one of them does not open, which is logged."""
        headers = job.definition.target.headers
        if not any(header.sealed for header in headers):
            return job
        try:
            opened = [self._opened(job, header) for header in headers]
        except UnreadableSecretError as error:
            # Known only when it happens; the operator has to give the key back or the caller the value.
            log.error("job.secret_unreadable", job_id=job.job_id, org_id=job.org_id, why=str(error))  # noqa: TRY400 - the traceback tells nothing more
            return None
        return replace(job, definition=_with_headers(job.definition, opened))

    def reseal(self, org_id: str, job_id: str, headers: Sequence[Header]) -> list[Header]:
        """Return the headers sealed by the current key.

        Raises:
            UnreadableSecretError: one of them does not open.
        """
        return [
            replace(
                header,
                sealed=self._ring.seal(
                    self._ring.open(header.sealed, *_place(org_id, job_id, header)), *_place(org_id, job_id, header)
                ),
            )
            if header.sealed
            else header
            for header in headers
        ]

    def _opened(self, job: Job, header: Header) -> Header:
        if not header.sealed:
            return header
        text = self._ring.open(header.sealed, *_place(job.org_id, job.job_id, header))
        return replace(header, value=text, sealed="")


def key_ids_of(definition: JobDefinition) -> list[str]:
    """Return the ids of the keys that a sealed definition needs."""
    return sorted({key_id_of(header.sealed) for header in definition.target.headers if header.sealed})


def _with_headers(definition: JobDefinition, headers: Sequence[Header]) -> JobDefinition:
    return replace(definition, target=replace(definition.target, headers=tuple(headers)))


def _place(org_id: str, job_id: str, header: Header) -> tuple[str, ...]:
    return "header", org_id, job_id, header.name.lower()
