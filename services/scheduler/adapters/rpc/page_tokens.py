"""Pages and their opaque tokens: the sort key of the last item, with a digest of the list's other arguments.

A token that comes back with other arguments would continue a list that never was; it is refused. A page ends early
where it would grow larger than a message may be.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from libs.common.errors import InvalidArgumentError

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000
MAX_PAGE_BYTES = 3 * 1024 * 1024
"""Well below the 4 MiB that callers take by default."""
_NUMBERS = range(-62_135_596_800_000, 253_402_300_800_000)
"""The milliseconds of the years 1 to 9999."""


READ_TOGETHER = 100
"""Items that are read at a time: a job may have most of a MiB, and a page of a thousand ends long before the last."""

M = TypeVar("M", bound=Message)
T = TypeVar("T")


class PagedRequest(Protocol):
    """The part that all list requests share."""

    page_size: int
    page_token: str


def page_size_of(request: PagedRequest, default: int = DEFAULT_PAGE_SIZE) -> int:
    """Return how many items a page has.

    Raises:
        InvalidArgumentError: a negative size.
    """
    if request.page_size < 0:
        raise InvalidArgumentError.of("page_size", "OUT_OF_RANGE", "must not be negative")
    return min(request.page_size or default, MAX_PAGE_SIZE)


def fitting(items: Iterable[M]) -> list[M]:
    """Return as many of the items as fit into one message, and at least one: what is left begins the next page."""
    page: list[M] = []
    size = 0
    for item in items:
        size += item.ByteSize()
        if page and size > MAX_PAGE_BYTES:
            break
        page.append(item)
    return page


async def read_page(
    read: Callable[[str, int], Awaitable[Sequence[T]]],
    write: Callable[[T], M],
    key: Callable[[T], str],
    *,
    after: str,
    size: int,
) -> tuple[list[M], str]:
    """Return the messages of a page, and the key of its last item where more follow; `read` gives items after a key."""
    page: list[M] = []
    while True:
        wanted = min(size - len(page), READ_TOGETHER)
        found = await read(after, wanted + 1)
        together = fitting([*page, *map(write, found[:wanted])])
        taken = len(together) - len(page)
        page, after = together, key(found[taken - 1]) if taken else after
        if len(found) == taken:
            return page, ""
        if taken < wanted or len(page) == size:
            return page, after


def encode_page_token(key: list[str | int], request: Message) -> str:
    """Return the token that continues after a sort key."""
    return base64.urlsafe_b64encode(json.dumps([_digest(request), *key]).encode()).decode()


def decode_page_token(request: Message, kinds: tuple[type[str | int], ...] = (str,)) -> list[str | int]:
    """Return the sort key of a request's token, with parts of the given kinds; empty without one.

    Raises:
        InvalidArgumentError: a token that is not ours, or that belongs to other arguments.
    """
    token: str = request.page_token  # type: ignore[attr-defined] # every list request has one
    if not token:
        return []
    try:
        digest, *key = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidArgumentError.of("page_token", "INVALID_PAGE_TOKEN", "is not a token of this service") from error
    if len(key) != len(kinds) or not all(map(_is_sound, key, kinds)):
        raise InvalidArgumentError.of("page_token", "INVALID_PAGE_TOKEN", "is not a token of this service")
    if digest != _digest(request):
        raise InvalidArgumentError.of("page_token", "INVALID_PAGE_TOKEN", "belongs to other arguments")
    return list(key)


def _is_sound(part: object, kind: type[str | int]) -> bool:
    """Whether a part of a key can be what we put there: no instant beyond the calendar, no half of a character."""
    return isinstance(part, kind) and (part.isascii() if isinstance(part, str) else part in _NUMBERS)


def _digest(request: Message) -> str:
    """Return what tells the arguments of two lists apart; the size of a page may change between pages."""
    arguments = type(request)()
    arguments.CopyFrom(request)
    arguments.ClearField("page_token")
    arguments.ClearField("page_size")
    return hashlib.sha256(arguments.SerializeToString(deterministic=True)).hexdigest()[:16]
