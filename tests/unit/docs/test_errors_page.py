"""docs/errors.md knows every reason that callers can meet, under the code that it comes with, and no other.

The source is read, not run: a text constant in UPPER_SNAKE outside of an enum is taken for a reason unless it is named
below as something else. So a new reason fails here until it is written down, however it reaches the caller.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from libs.common import errors
from services.executor.domain.gate_values import DeferReason
from services.scheduler.domain.outcome import Result

ROOT = Path(__file__).resolve().parents[3]
SERVERS = (
    *("services/scheduler/domain", "services/scheduler/usecases", "services/scheduler/adapters"),
    *("services/executor/domain", "services/executor/usecases", "services/executor/adapters/http", "libs/common/rpc"),
)
CLIENT = ("libs/client/*.py",)
REASON = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")
ROW = re.compile(r"^\| `([A-Z0-9_]+)` \|(?: ([A-Z_]+) \|)?", re.MULTILINE)

INTERNAL_PORT = {
    # Between our services: what BeginAttempts refuses, and errors of methods that no caller reaches.
    *("FINAL", "LATER", "LEASED", "NOT_FOUND", "NOT_READY", "OVERLAP_UNDECIDED", "JOB_STATE_UNDECIDED", "QUEUED"),
    *("SKIPPED", "NO_CERTIFICATE", "WRONG_SERVICE", "PARTITION_CONTENTION", "LEASE_LOST", "CHUNK_TOO_LARGE"),
    *("ANSWER_TOO_LARGE", "UNKNOWN_ENCODING", "UPLOAD_TOO_SLOW", "STORED_BYTES_QUOTA_EXCEEDED"),
    *("REPORT_NOT_WRITTEN", "SCHEDULE_UNDECIDED"),
}
OTHER_TEXT = {
    # States, outcomes and results.
    *("ACTIVE", "CANCELLED", "RELEASED", "UNKNOWN"),
    # Algorithms, parts of longer names, names that modules export, labels of metrics.
    *("HS256", "RS256", "ES256", "ANTHROPIC_MESSAGES", "TZDATA_VERSION", "ZONE_NAMES", "PARTITIONS"),
}
MADE_OF_PARTS = {
    # `<kind>_NOT_FOUND`, and `JOB_<state>` in ExplainJob.
    *("JOB_NOT_FOUND", "EXECUTION_NOT_FOUND", "API_KEY_NOT_FOUND", "SIGNING_SECRET_NOT_FOUND", "JOB_COMPLETED"),
}
ENUMS = {reason.value for reason in DeferReason} | {Result.NOT_SENT.value, Result.NO_ANSWER.value}
CODES = {name: kind.code.name for name, kind in vars(errors).items() if hasattr(kind, "code")}


def trees(*patterns: str) -> Iterator[ast.Module]:
    for pattern in patterns:
        paths = ROOT.glob(pattern) if "*" in pattern else (ROOT / pattern).rglob("*.py")
        for path in paths:
            if "testing" not in path.parts:
                yield ast.parse(path.read_text(encoding="utf-8"))


def is_reason(value: object) -> bool:
    return isinstance(value, str) and len(value) > 3 and REASON.fullmatch(value) is not None


def constants(tree: ast.Module) -> Iterator[str]:
    """Yield the texts that look like a reason, but for members of enums."""
    members = {
        id(node)
        for kind in ast.walk(tree)
        if isinstance(kind, ast.ClassDef) and any("Enum" in ast.unparse(base) for base in kind.bases)
        for node in ast.walk(kind)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in members and is_reason(node.value):
            yield str(node.value)


def raised(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield the reasons that error classes are made with, and the classes' codes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CODES and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and is_reason(first.value):
                yield str(first.value), CODES[node.func.id]


@pytest.fixture(scope="module")
def documented() -> dict[str, set[str]]:
    """The reasons of the page, and the codes that they stand beside."""
    found: dict[str, set[str]] = {}
    for reason, code in ROW.findall((ROOT / "docs" / "errors.md").read_text(encoding="utf-8")):
        found.setdefault(reason, set()).update({code} & set(CODES.values()))
    return found


def test_every_reason_is_documented(documented: dict[str, set[str]]) -> None:
    known = documented.keys() | INTERNAL_PORT | OTHER_TEXT
    client = {reason for tree in trees(*CLIENT) for reason, _ in raised(tree)}
    servers = {text for tree in trees(*SERVERS) for text in constants(tree)}
    assert sorted((servers | client | ENUMS) - known) == [], "write these down in docs/errors.md, or name what they are"


def test_every_documented_reason_exists(documented: dict[str, set[str]]) -> None:
    source = {text for tree in trees(*SERVERS, *CLIENT) for text in constants(tree)}
    assert sorted(documented.keys() - source - ENUMS - MADE_OF_PARTS - CODES.keys()) == []


def test_reasons_stand_beside_their_codes(documented: dict[str, set[str]]) -> None:
    made = {pair for tree in trees(*SERVERS) for pair in raised(tree)}
    wrong = [
        f"{reason}: {code}"
        for reason, code in sorted(made)
        if reason in documented and documented[reason] and code not in documented[reason]
    ]
    assert wrong == []


def test_unavailable_always_says_when_to_come_back() -> None:
    calls = [
        node
        for tree in trees("services/scheduler")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "UnavailableError"
    ]
    assert calls
    without = [ast.unparse(call) for call in calls if "retry_after_seconds" not in {word.arg for word in call.keywords}]
    assert without == []


def test_exceptions_are_few(documented: dict[str, set[str]]) -> None:
    """What is set apart here is in the source, and not in the page."""
    source = {text for tree in trees(*SERVERS) for text in constants(tree)}
    assert sorted((INTERNAL_PORT | OTHER_TEXT) & documented.keys()) == []
    assert sorted((INTERNAL_PORT | OTHER_TEXT) - source) == []
