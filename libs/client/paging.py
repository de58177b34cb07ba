"""Lists that come in pages, walked one item or one page at a time; each page is fetched when the walk gets there."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Generic, TypeVar

from google.protobuf.message import Message
from grpc import aio

from libs.client.calls import Calls
from libs.common.errors import InternalError

Request = TypeVar("Request", bound=Message)
Page = TypeVar("Page", bound=Message)
Item = TypeVar("Item")


class Paged(Generic[Request, Page, Item]):
    """An async iterable of items that may be walked more than once; each walk asks the server anew."""

    def __init__(
        self,
        calls: Calls,
        method: aio.UnaryUnaryMultiCallable[Request, Page],
        request: Request,
        items: Callable[[Page], Iterable[Item]],
    ) -> None:
        self._calls = calls
        self._method = method
        self._request = request
        self._items = items

    async def __aiter__(self) -> AsyncIterator[Item]:
        async for page in self.pages():
            for item in self._items(page):
                yield item

    async def pages(self) -> AsyncIterator[Page]:
        """Yield whole pages; `next_page_token` of one continues after it, also in another process."""
        request = copy.deepcopy(self._request)
        while True:
            page = await self._calls.unary(self._method, request)
            yield page
            token: str = page.next_page_token  # type: ignore[attr-defined] # every list answer has one
            if not token:
                return
            if token == request.page_token:  # type: ignore[attr-defined] # and every list request
                raise InternalError("PAGE_TOKEN_REPEATED", "the server answered the same page token twice")
            request.page_token = token  # type: ignore[attr-defined]
