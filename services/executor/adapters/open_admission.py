"""Admission without limits: every attempt may go, until limits and circuits are shared between executors."""

from __future__ import annotations

from services.executor.domain.attempt import Grant
from services.executor.domain.report import CallResult
from services.executor.usecases.ports import Deferral


class OpenAdmission:
    """Implements `Admission` by letting everything through."""

    async def admit(self, grant: Grant) -> Deferral | None:  # noqa: ARG002 - the port's signature
        """Let the attempt through."""
        return None

    async def note(self, grant: Grant, call: CallResult | None) -> None:
        """Learn nothing."""
