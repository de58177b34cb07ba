"""How much may be taken in, and how much may go out, so that every buffer stays bounded (promise P10).

The stream is a short buffer in front of the executors. When it is full, entries stay held here; when those are a batch
too, the dispatcher stops acquiring and the work stays in MongoDB, where it is safe. It does not stop before, because
orgs take turns in what is held: one that has little must not wait behind the backlog of one that fills the stream.

While Redis is away the backlog is unknown. Acquiring goes on then, because it is what materializes executions: the poll
path, which delivers meanwhile, finds only those.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bounds:
    """The buffers' sizes, in entries."""

    max_held: int
    max_stream_backlog: int
    acquire_batch: int
    deliver_batch: int = 500

    def acquire_limit(self, held: int, backlog: int | None) -> int:
        """Return how many executions to ask for now; 0 says wait.

        A quarter of a batch must be free, or a nearly full buffer would be topped up by one execution per call.
        """
        full = backlog is not None and backlog >= self.max_stream_backlog
        room = (min(self.acquire_batch, self.max_held) if full else self.max_held) - held
        worthwhile = max(1, min(self.acquire_batch, self.max_held) // 4)
        return min(room, self.acquire_batch) if room >= worthwhile else 0

    def deliver_limit(self, backlog: int | None) -> int:
        """Return how many entries may go onto the stream now; 0 says wait.

        With the backlog unknown a batch is tried, for only success tells that Redis is back.
        """
        if backlog is None:
            return self.deliver_batch
        return max(0, min(self.deliver_batch, self.max_stream_backlog - backlog))
