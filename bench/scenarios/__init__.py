"""The scenarios, by name. To add one: a module with `async def run(run: Run) -> list[Result]`, and its line here."""

from __future__ import annotations

from bench.runs import Scenario
from bench.scenarios import api, burst, ceiling, create, growth, idle, mixed, recurring, soak, steady

SCENARIOS: dict[str, Scenario] = {
    "burst": burst.run,
    "steady": steady.run,
    "ceiling": ceiling.run,
    "create": create.run,
    "mixed": mixed.run,
    "idle": idle.run,
    "growth": growth.run,
    "recurring": recurring.run,
    "api": api.run,
    "soak": soak.run,
}
ONLY_BY_NAME = frozenset({"soak"})
"""What takes too long to run with all others."""
LEFT_OUT_WHEN_QUICK = frozenset({"idle", "recurring", "api"})
"""What a quick run leaves out unless it is named: growth measures idling, too; the others wait and load for long."""
