"""Ids: what they look like, and how they sort."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ulid import ULID

from libs.common.ids import first_id_at, new_id, new_id_at

INSTANT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def test_an_id_is_a_ulid_as_the_library_writes_it() -> None:
    for made in (new_id(), new_id_at(INSTANT), new_id_at(datetime.fromtimestamp(0, UTC))):
        assert str(ULID.from_str(made)) == made
    assert ULID.from_str(new_id_at(INSTANT)).datetime == INSTANT


def test_ids_sort_by_the_order_in_which_they_were_made() -> None:
    made = [new_id() for _ in range(1000)]
    assert made == sorted(set(made))


def test_ids_of_an_instant_sort_within_its_bounds() -> None:
    later = INSTANT + timedelta(milliseconds=1)
    assert first_id_at(INSTANT) <= new_id_at(INSTANT) < first_id_at(later) <= new_id_at(later)
