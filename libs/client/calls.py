"""Makes the calls: each with a deadline, credentials, a request id and the caller's trace; those that may be repeated,
with retries.

The deadline spans all tries of a call. A call that ends by it raises UnavailableError with reason DEADLINE_EXCEEDED:
whether it took effect is not known.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from google.protobuf.message import Message
from grpc import aio

from libs.client.repeatable import is_repeatable
from libs.client.request_ids import mark, new_request_id
from libs.client.retry_policy import RetryPolicy
from libs.client.streams import Stream
from libs.common.clock import Clock
from libs.common.errors import PunctualError
from libs.common.rpc.call_tracing import TRACE_PARENT_KEY
from libs.common.rpc.interceptors import REQUEST_ID_KEY
from libs.common.tracing import format_trace_parent

DEFAULT_DEADLINE_SECONDS = 10.0
STREAM_LIFETIME_SECONDS = 3600.0
"""No stream lives longer, so that one that both sides forgot ends; a watch then opens the next."""

Metadata = tuple[tuple[str, str], ...]
Request = TypeVar("Request", bound=Message)
Answer = TypeVar("Answer", bound=Message)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Calls:
    """How a client makes its calls. `metadata` is asked at each try, so that a renewed token counts at once."""

    metadata: Callable[[], Metadata]
    clock: Clock
    retry_policy: RetryPolicy
    deadline_seconds: float = DEFAULT_DEADLINE_SECONDS
    spread: Callable[[], float] = random.random

    def with_deadline(self, seconds: float) -> Calls:
        """Return the same with another deadline."""
        return replace(self, deadline_seconds=seconds)

    async def unary(self, method: aio.UnaryUnaryMultiCallable[Request, Answer], request: Request) -> Answer:
        """Make a call with one answer.

        Raises:
            PunctualError: what the server answered, or why no answer came.
        """
        request_id = new_request_id()

        async def once(remaining: float) -> Answer:
            metadata = self._metadata(request_id)
            try:
                return await method(request, metadata=metadata, timeout=remaining)
            except PunctualError as error:
                mark(error, request_id)
                raise

        return await self._repeated(once, repeatable=is_repeatable(request))

    async def parts(
        self, method: aio.UnaryStreamMultiCallable[Request, Answer], request: Request
    ) -> AsyncGenerator[Answer, None]:
        """Yield the parts of a streamed answer; the deadline holds for the first part, and for each wait after it.

        Raises:
            PunctualError: what the server answered, or why a part did not come. Parts that were yielded stand.
        """

        async def once(remaining: float) -> tuple[Stream[Request, Answer], Answer | None]:
            stream = self.open_stream(method, request)
            try:
                return stream, await stream.take(remaining)
            except BaseException:
                stream.close()
                raise

        stream, part = await self._repeated(once, repeatable=is_repeatable(request))
        try:
            while part is not None:
                yield part
                part = await stream.take(self.deadline_seconds)
        finally:
            stream.close()

    def open_stream(
        self, method: aio.UnaryStreamMultiCallable[Request, Answer], request: Request
    ) -> Stream[Request, Answer]:
        """Begin one call with a stream of answers, to be closed by the caller; nothing is repeated."""
        request_id = new_request_id()
        call = method(request, metadata=self._metadata(request_id), timeout=STREAM_LIFETIME_SECONDS)
        return Stream(call, request_id)

    def _metadata(self, request_id: str) -> aio.Metadata:
        trace_parent = format_trace_parent()
        traced = ((TRACE_PARENT_KEY, trace_parent),) if trace_parent else ()
        return aio.Metadata(*self.metadata(), (REQUEST_ID_KEY, request_id), *traced)

    async def _repeated(self, once: Callable[[float], Awaitable[T]], *, repeatable: bool) -> T:
        """Try until it works, the deadline is near, or the error is one that trying again does not mend."""
        end = self.clock.monotonic() + self.deadline_seconds
        failures = 0
        while True:
            try:
                return await once(end - self.clock.monotonic())
            except PunctualError as error:
                failures += 1
                remaining = end - self.clock.monotonic()
                wait = self.retry_policy.delay(error, failures=failures, remaining=remaining, spread=self.spread())
                if wait is None or not repeatable:
                    raise
            await self.clock.sleep(wait)
