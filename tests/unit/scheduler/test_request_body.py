"""Request bodies: presets, templates, and values that try to break out of them."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.errors import InvalidArgumentError
from services.scheduler.domain.job import Body, BodyPreset, Target
from services.scheduler.domain.request_body import (
    MAX_DEPTH,
    MAX_PLACEHOLDERS,
    PLACEHOLDERS,
    BodyValues,
    check_template,
    largest_body,
    render_body,
)

VALUES = BodyValues("job1", "job1-2", 3, datetime(2026, 3, 1, 23, 30, tzinfo=UTC), "Europe/Berlin")
TARGET = Target("https://api.example.com/", 'Say "hi"\n{{prompt}} {{secret}} ☕')


def rendered(body: Body | None, target: Target = TARGET, values: BodyValues = VALUES) -> object:
    return json.loads(render_body(replace(target, body=body), values))


def template(text: str) -> Body:
    check_template(text)
    return Body(template=text)


def test_a_zone_that_the_time_zone_database_dropped_is_no_trouble() -> None:
    dropped = replace(VALUES, time_zone="Mars/Phobos")
    assert rendered(template('["{{fire_date}}"]'), values=dropped) == ["2026-03-01"]


def test_without_a_shape_the_prompt_is_sent_as_it_is() -> None:
    assert render_body(Target("u", 'a"☕'), VALUES) == '{"prompt":"a\\"☕"}'.encode()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            Body(BodyPreset.OPENAI_CHAT, model="m"),
            {"model": "m", "messages": [{"role": "user", "content": TARGET.prompt}]},
        ),
        (
            Body(BodyPreset.OPENAI_CHAT, model="m", max_tokens=7),
            {"model": "m", "messages": [{"role": "user", "content": TARGET.prompt}], "max_completion_tokens": 7},
        ),
        (Body(BodyPreset.OPENAI_RESPONSES, model="m"), {"model": "m", "input": TARGET.prompt}),
        (
            Body(BodyPreset.OPENAI_RESPONSES, model="m", max_tokens=7),
            {"model": "m", "input": TARGET.prompt, "max_output_tokens": 7},
        ),
        (
            Body(BodyPreset.ANTHROPIC_MESSAGES, model="m", max_tokens=7),
            {"model": "m", "max_tokens": 7, "messages": [{"role": "user", "content": TARGET.prompt}]},
        ),
    ],
)
def test_presets_have_the_shape_of_their_api(body: Body, expected: object) -> None:
    assert rendered(body) == expected


def test_placeholders_stand_for_the_executions_own_slot() -> None:
    body = template(json.dumps({name: f"<{{{{{name}}}}}>" for name in PLACEHOLDERS}))
    values = replace(VALUES, previous_success_time=datetime(2026, 2, 28, 23, 30, 0, 500_000, tzinfo=UTC))
    assert rendered(body, values=values) == {
        "prompt": f"<{TARGET.prompt}>",
        "job_id": "<job1>",
        "execution_id": "<job1-2>",
        "attempt": "<3>",
        "fire_time": "<2026-03-01T23:30:00Z>",
        # In Berlin it is the next day by then.
        "fire_date": "<2026-03-02>",
        "previous_success_time": "<2026-02-28T23:30:00Z>",
    }


def test_no_success_yet_is_empty() -> None:
    assert rendered(template('"{{previous_success_time}}"')) == ""


@pytest.mark.parametrize("text", ['"{{prompt}}"', '"{{ prompt }}"', '"{{\\tprompt\\n}}"', '"{{  prompt}}"'])
def test_blanks_around_a_name_do_not_matter(text: str) -> None:
    assert rendered(template(text)) == TARGET.prompt


def test_only_strings_of_values_are_filled() -> None:
    text = '{"{{prompt}}": [1, 1.5, true, null, {"a": "x{{attempt}}y{{attempt}}z"}], "b": "{attempt} {{{attempt}}}"}'
    assert rendered(template(text)) == {
        "{{prompt}}": [1, 1.5, True, None, {"a": "x3y3z"}],
        "b": "{attempt} {3}",
    }


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.text(st.characters(blacklist_categories=["Cs"]), min_size=1))
def test_no_prompt_breaks_out_of_its_string(prompt: str) -> None:
    body = template('{"a": ["{{prompt}}", "b"], "n": 1}')
    assert rendered(body, Target("u", prompt)) == {"a": [prompt, "b"], "n": 1}


def test_a_prompt_that_looks_like_a_placeholder_is_not_filled() -> None:
    assert rendered(template('"{{prompt}}"'), Target("u", "{{job_id}}")) == "{{job_id}}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "INVALID_TEMPLATE"),
        ("prompt", "INVALID_TEMPLATE"),
        ('{"a": {{prompt}}}', "INVALID_TEMPLATE"),
        ("NaN", "INVALID_TEMPLATE"),
        ('{"a": -Infinity}', "INVALID_TEMPLATE"),
        ("1e999", "INVALID_TEMPLATE"),
        ("9" * 5000, "INVALID_TEMPLATE"),
        # What could be read but not written would fail the whole batch of grants it is in.
        ('"\\ud800"', "INVALID_TEMPLATE"),
        ('{"\\udfff": 1}', "INVALID_TEMPLATE"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "INVALID_TEMPLATE"),
        ("[" * 30_000 + "]" * 30_000, "INVALID_TEMPLATE"),
        ('"{{}}"', "UNKNOWN_PLACEHOLDER"),
        ('"{{Prompt}}"', "UNKNOWN_PLACEHOLDER"),
        ('"{{ prompt.upper() }}"', "UNKNOWN_PLACEHOLDER"),
        ('["{{prompt}}", {"a": ["{{evil}}"]}]', "UNKNOWN_PLACEHOLDER"),
        ('"' + "{{attempt}}" * (MAX_PLACEHOLDERS + 1) + '"', "TOO_MANY_PLACEHOLDERS"),
    ],
)
def test_templates_that_could_not_be_sent_are_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        check_template(text)
    (violation,) = raised.value.violations
    assert (violation.field, violation.reason) == ("template", reason)


def test_unknown_names_are_listed() -> None:
    with pytest.raises(InvalidArgumentError, match="unknown placeholder a, b; known are prompt"):
        check_template('["{{b}}", "{{a}}", "{{b}}"]')


@pytest.mark.parametrize("filler", [" ", "{", "{{", "{{ "])
def test_a_hostile_template_costs_no_time(filler: str) -> None:
    text = '"{{' + filler * (60_000 // len(filler)) + '"'
    began = time.process_time()
    check_template(text)
    render_body(replace(TARGET, body=Body(template=text)), VALUES)
    assert time.process_time() - began < 1.0


def test_the_deepest_template_renders() -> None:
    depth = MAX_DEPTH - 1
    check_template("[" * depth + '"{{attempt}}"' + "]" * depth)
    body = Body(template="[" * depth + '"{{attempt}}"' + "]" * depth)
    assert render_body(replace(TARGET, body=body), VALUES) == ("[" * depth + '"3"' + "]" * depth).encode()


@pytest.mark.parametrize("text", ["[" + "1e15," * 10_000 + "1e15]", '{"a": [1E15, -1e-4, 1e22], "b": "{{prompt}}"}'])
def test_a_body_does_not_pass_the_size_that_is_reckoned_for_it(text: str) -> None:
    target = replace(TARGET, body=template(text))
    check_template(text)
    assert len(render_body(target, VALUES)) <= largest_body(target)
