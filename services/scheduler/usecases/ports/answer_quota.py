"""How much of answers an org may keep."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class AnswerQuota(Protocol):
    """How much of answers an org may keep; asked for each report, so it answers from memory."""

    def is_full(self, org_id: str) -> bool:
        """Whether the org's stored answers exceed its quota, as known some seconds ago."""
        ...

    def add_answer(self, org_id: str, size: int, end_time: datetime) -> None:
        """Note that an answer of so many bytes was stored, which stays for the retention from then."""
        ...
