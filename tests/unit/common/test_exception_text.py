"""Exceptions in logs: the way they came is told, the data that libraries quote is not."""

from __future__ import annotations

import json

import pytest
from pydantic import BaseModel, ValidationError
from pymongo.errors import BulkWriteError, OperationFailure

from libs.common.errors import UnavailableError
from libs.common.exception_text import WITHHELD, describe, format_exception

CANARY = "canary-7f3a"


class Model(BaseModel):
    number: int


def raised(fail, *arguments) -> Exception:
    try:
        fail(*arguments)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the test is about
        return error
    raise AssertionError


def validate(value: str) -> None:
    Model(number=value)


def bulk_write(value: str) -> None:
    raise BulkWriteError({"writeErrors": [{"code": 121, "op": {"header": value}}]})


@pytest.mark.parametrize("fail", [validate, bulk_write, int, json.loads, {}.__getitem__])
def test_what_quotes_its_input_is_withheld(fail) -> None:
    error = raised(fail, CANARY)
    assert CANARY in repr(error) or isinstance(error, json.JSONDecodeError)
    assert describe(error).endswith(WITHHELD)
    assert CANARY not in format_exception(error)


def test_the_way_is_told() -> None:
    text = format_exception(raised(validate, CANARY))
    assert "in validate" in text
    assert "ValidationError" in text


@pytest.mark.parametrize("error", [RuntimeError("boom"), UnavailableError("X", "boom"), OSError("boom")])
def test_sentences_without_data_are_kept(error: Exception) -> None:
    assert describe(error).endswith(": boom")


def test_the_name_of_mongodbs_code_is_kept() -> None:
    details = {"ok": 0.0, "errmsg": CANARY, "code": 18, "codeName": "AuthenticationFailed"}
    told = describe(OperationFailure(CANARY, 18, details))
    assert told == f"pymongo.errors.OperationFailure: AuthenticationFailed {WITHHELD}"


def test_causes_and_groups_are_told_with_their_texts_withheld() -> None:
    def fail() -> None:
        try:
            validate(CANARY)
        except ValidationError as error:
            raise ExceptionGroup("both", [RuntimeError("outer"), raised(int, CANARY)]) from error

    text = format_exception(raised(fail))
    assert CANARY not in text
    assert text.index("ValidationError") < text.index("ExceptionGroup: both") < text.index("RuntimeError: outer")


def test_an_exception_that_is_its_own_cause_ends() -> None:
    error = RuntimeError("boom")
    error.__cause__ = error
    assert format_exception(error).count("RuntimeError: boom") == 10
