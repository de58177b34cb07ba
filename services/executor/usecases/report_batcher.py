"""Gathers reports and hands them to the scheduler in batches; the last station of every held attempt.

A batch goes out no sooner than a window after the one before it, so that a steady load never decays into calls with
one report each, and a lone report does not wait. A batch is bounded by number and by bytes; a full one does not wait
either, and while one is under way one further full one may go beside it: what many executions of one instant give back
would otherwise be bound by one call's way there and back.

A report is told until the scheduler has taken it, however long that is away: repeating is harmless (the fencing token
names the lease), giving up would turn a known outcome into an unknown one, and meanwhile the attempt keeps its place
in the bounded room, so that nothing piles up. If we die here, the lease runs out and the outcome is unknown.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from libs.common.clock import Clock
from libs.common.crash_points import crash_point
from libs.common.errors import InternalError, PunctualError, ResourceExhaustedError, UnavailableError
from libs.common.exception_text import describe
from libs.common.lifecycle import first_of
from libs.common.logs import get_logger
from services.executor.domain.report import Report
from services.executor.usecases.acknowledger import Acknowledger
from services.executor.usecases.held_attempts import Held, HeldAttempts
from services.executor.usecases.ports import AttemptService, ExecutorObserver, ReportVerdict

log = get_logger(__name__)

MAX_BATCH_BYTES = 2 * 1024 * 1024
"""Of answers in one batch; with its largest possible report on top it still fits a message."""
_IDLE_SECONDS = 5.0
_PATIENCE_WITH_ONE = 5

Told = tuple[Held, Report]
"""A concluded attempt and what is told of it."""


class ReportBatcher:
    """The reports that wait to be taken."""

    def __init__(
        self,
        service: AttemptService,
        held: HeldAttempts,
        acknowledger: Acknowledger,
        observer: ExecutorObserver,
        clock: Clock,
        *,
        window_seconds: float,
        batch_size: int,
    ) -> None:
        self._service = service
        self._held = held
        self._acknowledger = acknowledger
        self._observer = observer
        self._clock = clock
        self._window = window_seconds
        self._batch_size = batch_size
        self._limit = batch_size
        self._next_send = clock.monotonic()
        self._refusals_of_one = 0
        self._waiting: deque[Told] = deque()
        self._under_way = False
        self._some = asyncio.Event()
        self._full = asyncio.Event()
        self._beside = asyncio.Event()
        """Set when a full batch may wait while another one is under way."""

    def add(self, held: Held, report: Report) -> None:
        """Take in a concluded attempt's report."""
        self._waiting.append((held, report))
        self._some.set()
        if len(self._waiting) >= self._batch_size:
            self._full.set()
            self._beside.set()

    def let_go(self, held: Held) -> None:
        """End an attempt without a report, because somebody else holds it."""
        self._settle([held])

    async def run_once(self) -> int:
        """Wait for reports, until the window is over or they are many, send one batch, and return how many were taken.

        Raises:
            UnavailableError: the scheduler is away; the batch goes back and is sent again.
            ResourceExhaustedError: the scheduler has too much to do; likewise.
        """
        if not self._waiting:
            self._some.clear()
            await first_of(self._some.wait(), self._clock.sleep(_IDLE_SECONDS))
            if not self._waiting:
                return 0
        left = self._next_send - self._clock.monotonic()
        if left > 0 and len(self._waiting) < self._batch_size:
            self._full.clear()
            await first_of(self._full.wait(), self._clock.sleep(left))
        batch = self._next_batch()
        self._under_way = True
        self._beside.set()
        try:
            return await self._send(batch)
        finally:
            self._under_way = False
            self._next_send = self._clock.monotonic() + self._window

    async def run_beside(self) -> int:
        """Send a full batch that waits while another one is under way, and return how many reports were taken.

        Raises:
            UnavailableError, ResourceExhaustedError: as `run_once`.
        """
        # While a refused batch is cut into halves, who is refused has to be told apart.
        if self._under_way and self._limit == self._batch_size <= len(self._waiting):
            return await self._send(self._next_batch())
        self._beside.clear()
        await first_of(self._beside.wait(), self._clock.sleep(_IDLE_SECONDS))
        return 0

    async def _send(self, batch: list[Told]) -> int:
        try:
            verdicts = await self._service.report([report for _, report in batch])
        except (UnavailableError, ResourceExhaustedError):
            self._waiting.extendleft(reversed(batch))
            raise
        except PunctualError as error:
            self._refused(batch, error)
            return 0
        except Exception as error:  # noqa: BLE001 - reports that were lost here would hold their leases for ever
            self._refused(batch, InternalError("REPORT_NOT_WRITTEN", describe(error)))
            return 0
        self._limit, self._refusals_of_one = self._batch_size, 0
        self._taken(batch, verdicts)
        return len(batch)

    def _next_batch(self) -> list[Told]:
        """Take the oldest reports, as many as one call may carry and at least one."""
        batch: list[Told] = []
        size = 0
        while self._waiting and len(batch) < self._limit and size < MAX_BATCH_BYTES:
            item = self._waiting.popleft()
            batch.append(item)
            size += _size(item[1])
        return batch

    def _taken(self, batch: Sequence[Told], verdicts: Sequence[ReportVerdict]) -> None:
        # If we die here the outcome is stored, and the entry is delivered again and refused.
        crash_point("executor.reported")
        for (held, report), verdict in zip(batch, verdicts, strict=True):
            if verdict is ReportVerdict.STALE:
                log.debug("report.stale", execution_id=held.lease.execution_id, result=report.result.name)
                self._observer.report_refused()
        self._settle([held for held, _ in batch])

    def _refused(self, batch: list[Told], error: PunctualError) -> None:
        """Put back a batch that was refused as a whole, to send it in halves until the bad report is alone.

        That one is told again without its answer, the likeliest cause, and let go in the end: it must not block others.
        """
        if len(batch) > 1:
            self._limit = len(batch) // 2
        else:
            self._refusals_of_one += 1
            if self._refusals_of_one >= _PATIENCE_WITH_ONE:
                self._refusals_of_one = 0
                self._give_up(batch[0], error)
                return
            if self._refusals_of_one > 1:
                held, report = batch[0]
                batch = [(held, replace(report, response=None))]
        self._waiting.extendleft(reversed(batch))

    def _give_up(self, item: Told, error: PunctualError) -> None:
        """Let a report go that the scheduler will never take: its lease runs out, and the outcome becomes unknown."""
        held, report = item
        log.error(
            "report.refused_for_good",
            execution_id=held.lease.execution_id,
            result=report.result.name,
            reason=error.reason,
            error=error.message,
        )
        self._settle([held])

    def _settle(self, done: Sequence[Held]) -> None:
        for held in done:
            self._held.remove(held)
        self._acknowledger.add(held.entry for held in done if held.entry is not None)


def _size(report: Report) -> int:
    """Return about how many bytes the report takes on the wire."""
    response = report.response
    if response is None:
        return 0
    headers = sum(len(header.name) + len(header.value) for header in response.headers)
    return len(response.body) + len(response.head) + headers
