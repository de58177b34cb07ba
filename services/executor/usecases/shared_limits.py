"""Keeps the limits of targets: together with the other executors while Redis is well, its share while it is not.

    SHARED ── a call of Redis fails ──> APART ── signs of life succeed for a while ──> SHARED

When Redis is back, or has forgotten, it knows of no starts, and of no host that asked to be left alone. Each executor
tells it of those that it knows, and stays apart a little longer, until the others have done so, too. What one executor
alone cannot reach, the others cannot know: they go on with the whole limit, so that a host may see one share more for
as long as that lasts.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from itertools import islice

from libs.common.clock import Clock
from libs.common.errors import UnavailableError
from libs.common.logs import get_logger
from services.executor.domain.gate_values import (
    SECOND,
    Admitted,
    Ask,
    Feedback,
    GateRules,
    Note,
    Start,
    TargetKey,
    Verdict,
    to_micros,
)
from services.executor.domain.own_gates import OwnGates
from services.executor.usecases.host_watch import HostWatch
from services.executor.usecases.ports import ExecutorObserver, SchedulerClock, SharedGates

KEEP_SECONDS = 2.0
"""How often an executor gives a sign of life and renews places; several times within the leases of both."""
PLACE_LEASE_SECONDS = 15
"""After which the places of an executor that died are free again."""
RETURN_SECONDS = 4.0
"""How long limits are kept apart after Redis came back: twice the time in which every executor notices."""
MAX_RECENT = 20_000
"""Own starts that are remembered for the day that Redis forgets; the newest ones."""
MAX_CLOSURES = 500
"""Closed hosts in one exchange."""

log = get_logger(__name__)


class SharedLimits:
    """All gates, as this executor asks them."""

    def __init__(
        self,
        gates: SharedGates,
        rules: GateRules,
        watch: HostWatch,
        observer: ExecutorObserver,
        *,
        clock: Clock,
        scheduler_clock: SchedulerClock,
        executor_id: str,
        assumed_executors: int,
    ) -> None:
        """Take how many executors there may be, for as long as Redis has not told."""
        self._gates = gates
        self._rules = rules
        self._watch = watch
        self._observer = observer
        self._clock = clock
        self._scheduler_clock = scheduler_clock
        self._executor_id = executor_id
        self._executors = assumed_executors
        self._own: OwnGates | None = None
        """While apart."""
        self._back_since: float | None = None
        """While apart: since when Redis has answered again, on the monotonic clock."""
        self._places: defaultdict[TargetKey, dict[str, None]] = defaultdict(dict)
        self._recent: deque[tuple[TargetKey, Start]] = deque(maxlen=MAX_RECENT)
        self._untold = 0
        """How many of the newest own starts Redis has still to hear of."""
        self._places_settled = asyncio.Lock()
        """Held while what Redis holds of our places may differ from `_places`. To renew a place that an exchange under
        way gives back would take it again, for nobody, until its lease runs out."""

    @property
    def shared(self) -> bool:
        """Whether limits are kept together now."""
        return self._own is None

    async def exchange(
        self, notes: Sequence[tuple[TargetKey, Note]], asks: Sequence[tuple[TargetKey, Ask]]
    ) -> Sequence[Verdict]:
        """Tell gates of ended attempts and ask them to let others through; there is always an answer, and soon."""
        async with self._places_settled:
            verdicts = await self._exchange(notes, asks)
            for target, note in notes:
                places = self._places[target]
                places.pop(note.member, None)
                if not places:
                    del self._places[target]
            for (target, ask), verdict in zip(asks, verdicts, strict=True):
                if isinstance(verdict, Admitted):
                    member = ask.member
                    self._places[target][member] = None
                    start = Start(member, ask.job_id, verdict.slot, ask.job_limit > 0, ask.host_limit > 0)
                    self._recent.append((target, start))
                    if self._own is not None:
                        self._untold += 1
        return verdicts

    async def _exchange(
        self, notes: Sequence[tuple[TargetKey, Note]], asks: Sequence[tuple[TargetKey, Ask]]
    ) -> Sequence[Verdict]:
        targets = [target for target, _ in asks]
        if self._own is None:
            try:
                answers = await self._gates.exchange(notes, asks)
            except UnavailableError as error:
                self._own = self._part(error)
            else:
                self._watch.told(notes, answers.after_notes)
                self._watch.asked(targets, answers.after_asks)
                return answers.verdicts
        self._watch.told(notes, [self._own.note(target, note) for target, note in notes])
        answered = [self._own.admit(target, ask) for target, ask in asks]
        self._watch.asked(targets, [summary for _, summary in answered])
        return [verdict for verdict, _ in answered]

    async def run_once(self) -> int:
        """Give a sign of life, renew the places of attempts under way, and return how many executors there are.

        Raises:
            UnavailableError: Redis is away; limits are kept apart from now on.
        """
        now = to_micros(self._scheduler_clock.now())
        lease_until = now + PLACE_LEASE_SECONDS * SECOND
        if self._own is not None:
            for target, members in self._places.items():
                self._own.renew(target, members, lease_until)
        try:
            count, known = await self._gates.sign_of_life(self._executor_id, now)
            if not known:
                self._untold = len(self._recent)
            await self._tell_starts(now)
            async with self._places_settled:
                # What was let through meanwhile: after this, the shared gates may decide again.
                await self._tell_starts(now)
                if self._own is not None or not known:
                    await self._tell_closures(now)
                if self._places:
                    await self._gates.renew(
                        {target: list(members) for target, members in self._places.items()}, now, lease_until
                    )
        except UnavailableError as error:
            self._own = self._own or self._part(error)
            self._back_since = None
            raise
        self._return(count)
        return count

    def _part(self, error: UnavailableError) -> OwnGates:
        log.warning("limits.apart", executors=self._executors, error=error.message)
        self._observer.limits_shared(shared=False)
        self._back_since = None
        # Whoever takes over may have missed the latest of them, and may know this executor all the same.
        self._untold = len(self._recent)
        now = to_micros(self._scheduler_clock.now())
        own = OwnGates(self._rules, self._executors, now)
        own.remember(self._recent)
        own.take_over(self._watch.left_alone(now))
        for target, members in self._places.items():
            own.renew(target, members, now + PLACE_LEASE_SECONDS * SECOND)
        return own

    def _return(self, count: int) -> None:
        """Share limits again once Redis has been there for a while, and learn how many executors there are."""
        if self._own is not None:
            now = self._clock.monotonic()
            self._back_since = now if self._back_since is None else self._back_since
            if now - self._back_since < RETURN_SECONDS:
                # Others have yet to give their sign of life: to count them now would make the shares too large.
                return
            self._own = None
            log.info("limits.shared", executors=count)
            self._observer.limits_shared(shared=True)
        self._executors = max(count, 1)

    async def _tell_starts(self, now: int) -> None:
        if self._untold:
            telling = self._untold
            await self._gates.restore(self._untold_starts(now))
            self._untold -= telling

    async def _tell_closures(self, now: int) -> None:
        """Tell shared gates until when their hosts asked to be left alone, as notes that say nothing else."""
        closed = [
            (target, Note("", 0, "", now, started=True, feedback=Feedback(close_until=summary.closed_until)))
            for target, summary in self._watch.left_alone(now).items()
            if summary.closed_until > now
        ]
        for begin in range(0, len(closed), MAX_CLOSURES):
            await self._gates.exchange(closed[begin : begin + MAX_CLOSURES], [])

    def _untold_starts(self, now: int) -> Mapping[TargetKey, Mapping[str, Sequence[tuple[str, int]]]]:
        """Return what Redis is to hear of that still counts: of each job by its id, of the host under the empty id."""
        found: defaultdict[TargetKey, defaultdict[str, list[tuple[str, int]]]] = defaultdict(lambda: defaultdict(list))
        oldest = now - 2 * self._rules.counted_window
        for target, start in islice(reversed(self._recent), self._untold):
            if start.slot > oldest:
                if start.job_limited:
                    found[target][start.job_id].append((start.member, start.slot))
                if start.host_limited:
                    found[target][""].append((start.member, start.slot))
        return found
