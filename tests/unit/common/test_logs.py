"""Logs: what is masked by name, what stays, and the shape of a line."""

import json
import logging
from collections.abc import Iterator
from typing import Literal

import pytest
import structlog

from libs.common.logs import MASK, bound, configure_logging, get_logger, redact

LOCAL_VALUE = "canary-value"


def raised_error() -> RuntimeError:
    """Return an error with a traceback that leads through a frame with a local variable."""

    def fail() -> None:
        _local = LOCAL_VALUE.upper()
        raise RuntimeError("boom")

    try:
        fail()
    except RuntimeError as error:
        return error
    raise AssertionError


@pytest.fixture
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(capture=False)


@pytest.mark.parametrize(
    "name",
    ["authorization", "Cookie", "set-cookie", "signing_secret", "lease_token", "api_key", "X-Api-Key", "password",
     "headers", "request_headers", "body", "prompt", "rendered_prompt", "query"],
)  # fmt: skip
def test_secret_names_are_masked(name: str) -> None:
    assert redact(None, "info", {"event": "e", name: "canary"})[name] == MASK


@pytest.mark.parametrize("name", ["fencing_token", "body_bytes", "job_id", "header_count"])
def test_harmless_names_are_kept(name: str) -> None:
    assert redact(None, "info", {name: 7})[name] == 7


def test_masking_reaches_into_structures() -> None:
    event = {"request": {"method": "POST", "items": [{"Authorization": "canary"}]}}
    assert redact(None, "info", event) == {"request": {"method": "POST", "items": [{"Authorization": MASK}]}}


def test_urls_lose_query_fragment_and_user() -> None:
    event = {"target_url": "https://user:canary@api.example.com/v1?key=canary#canary"}
    assert redact(None, "info", event) == {"target_url": "https://api.example.com/v1"}


@pytest.mark.usefixtures("restored_logging")
def test_json_lines_carry_service_context_and_exception(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", "json", "example")
    with bound(execution_id="e1"):
        get_logger("a.module").error("execution.failed", exc_info=raised_error(), lag_ms=3)
    line = json.loads(capsys.readouterr().out)
    assert {key: line[key] for key in ("event", "service", "module", "execution_id", "level", "lag_ms")} == {
        "event": "execution.failed",
        "service": "example",
        "module": "a.module",
        "execution_id": "e1",
        "level": "error",
        "lag_ms": 3,
    }
    assert "RuntimeError: boom" in line["exception"]


@pytest.mark.usefixtures("restored_logging")
@pytest.mark.parametrize("fmt", ["json", "console"])
def test_tracebacks_show_no_local_variables(
    fmt: Literal["json", "console"], capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("INFO", fmt, "example")
    get_logger("a.module").error("execution.failed", exc_info=raised_error())
    out = capsys.readouterr().out
    assert "Traceback" in out
    assert LOCAL_VALUE.upper() not in out


@pytest.mark.usefixtures("restored_logging")
def test_library_lines_take_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", "json", "example")
    logging.getLogger("some.library").warning("it %s", "happened")
    logging.getLogger("some.library").debug("chatter")
    lines = capsys.readouterr().out.splitlines()
    line = json.loads(lines[0])
    assert (line["event"], line["module"], line["service"], len(lines)) == ("it happened", "some.library", "example", 1)
