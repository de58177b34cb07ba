"""What all lists share: how many items are shown, and how many a page then asks for."""

from __future__ import annotations

from typing import Annotated

import typer

Limit = Annotated[int, typer.Option(min=0, help="Show at most so many; 0: all.")]
MAX_PAGE = 100


def listed(limit: int) -> int:
    """Return a page size that fetches little more than is shown: one more tells whether there is more."""
    return min(limit + 1, MAX_PAGE) if limit else MAX_PAGE
