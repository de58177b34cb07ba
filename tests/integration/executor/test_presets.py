"""The presets against servers that check what each API asks for: required fields, their types, and nothing unknown."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from aiohttp import web

from services.executor.adapters.http.target_caller import HttpTargetCaller
from services.executor.domain.attempt import Header
from services.executor.domain.report import CallProgress
from services.scheduler.domain.job import Body, BodyPreset, Target
from services.scheduler.domain.request_body import BodyValues, render_body
from tests.integration.executor.targets import Servers, make_grant
from tests.support.scheduler_values import NOW

PROMPT = 'Sum up "yesterday": {{fire_date}}\nGrüße ☕'
Check = Callable[[Mapping[str, str], dict[str, Any]], str]


def wrong_fields(body: dict[str, Any], required: Mapping[str, type], optional: Mapping[str, type]) -> str:
    """Return what an API would complain about, or nothing."""
    for name, kind in required.items():
        if not isinstance(body.get(name), kind) or not body[name]:
            return f"{name} is required and must be a {kind.__name__}"
    for name, value in body.items():
        if name not in required and not isinstance(value, optional.get(name, ())):  # type: ignore[arg-type]
            return f"{name} is unknown or of a wrong type"
    return ""


def wrong_message(body: dict[str, Any]) -> str:
    [message] = body["messages"]
    if message.keys() != {"role", "content"} or message["role"] != "user" or not isinstance(message["content"], str):
        return "messages must hold one message of the user"
    return ""


def openai_chat(headers: Mapping[str, str], body: dict[str, Any]) -> str:
    if not headers.get("Authorization", "").startswith("Bearer "):
        return "no bearer token"
    wrong = wrong_fields(body, {"model": str, "messages": list}, {"max_completion_tokens": int})
    return wrong or wrong_message(body)


def openai_responses(headers: Mapping[str, str], body: dict[str, Any]) -> str:
    if not headers.get("Authorization", "").startswith("Bearer "):
        return "no bearer token"
    return wrong_fields(body, {"model": str, "input": str}, {"max_output_tokens": int})


def anthropic_messages(headers: Mapping[str, str], body: dict[str, Any]) -> str:
    if not headers.get("x-api-key") or headers.get("anthropic-version") != "2023-06-01":
        return "x-api-key and anthropic-version are required"
    return wrong_fields(body, {"model": str, "max_tokens": int, "messages": list}, {}) or wrong_message(body)


BEARER = (Header("Authorization", "Bearer key", sensitive=True),)
ANTHROPIC = (Header("x-api-key", "key", sensitive=True), Header("anthropic-version", "2023-06-01"))


@pytest.mark.parametrize(
    ("preset", "max_tokens", "headers", "check"),
    [
        (BodyPreset.OPENAI_CHAT, 0, BEARER, openai_chat),
        (BodyPreset.OPENAI_CHAT, 500, BEARER, openai_chat),
        (BodyPreset.OPENAI_RESPONSES, 0, BEARER, openai_responses),
        (BodyPreset.OPENAI_RESPONSES, 500, BEARER, openai_responses),
        (BodyPreset.ANTHROPIC_MESSAGES, 500, ANTHROPIC, anthropic_messages),
    ],
)
async def test_a_preset_is_what_its_api_asks_for(  # noqa: PLR0917 - fixtures and cases
    caller: HttpTargetCaller,
    servers: Servers,
    preset: BodyPreset,
    max_tokens: int,
    headers: tuple[Header, ...],
    check: Check,
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        wrong = "" if request.content_type == "application/json" else "not JSON"
        wrong = wrong or check(request.headers, body)
        return web.json_response({"error": wrong} if wrong else {"ok": True}, status=400 if wrong else 200)

    target = await servers.http(answer)
    shape = Target(target.url, PROMPT, body=Body(preset, model="model-1", max_tokens=max_tokens))
    body = render_body(shape, BodyValues("job", "execution", 1, NOW, "UTC"))
    result = await caller.call(make_grant(target.url, body=body, headers=list(headers)), CallProgress())
    assert result.status_code == 200
    sent = json.loads(target.requests[0][1])
    # The prompt goes as it is: a preset has no placeholders.
    assert PROMPT in (sent.get("input"), *(message["content"] for message in sent.get("messages", ())))
