"""One opened stream of answers: each wait is limited, each error carries the request id, closing ends both sides."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

from google.protobuf.message import Message
from grpc import aio

from libs.client.request_ids import mark
from libs.common.errors import PunctualError, UnavailableError

Request = TypeVar("Request", bound=Message)
Answer = TypeVar("Answer", bound=Message)


class Stream(Generic[Request, Answer]):
    """The answers of one call, taken one by one."""

    def __init__(self, call: aio.UnaryStreamCall[Request, Answer], request_id: str) -> None:
        self._call = call
        self._answers = aiter(call)
        self._request_id = request_id

    async def take(self, seconds: float) -> Answer | None:
        """Return the next answer, or None when the server ended the stream well.

        Raises:
            PunctualError: how the server ended it; UnavailableError with reason DEADLINE_EXCEEDED when nothing came
                within `seconds`.
        """
        try:
            async with asyncio.timeout(seconds):
                return await anext(self._answers, None)
        except PunctualError as error:
            mark(error, self._request_id)
            raise
        except TimeoutError as error:
            silent = UnavailableError("DEADLINE_EXCEEDED", f"the server sent nothing for {seconds:.0f} s")
            mark(silent, self._request_id)
            raise silent from error

    def close(self) -> None:
        """End the call, if it has not ended."""
        self._call.cancel()
