"""Settings: what a wrong one says, and what it does not say."""

import pytest
from pydantic import Field, SecretStr, field_validator

from libs.common.settings import ServiceSettings, load_settings


class ExampleSettings(ServiceSettings):
    shards: int = Field(default=1, ge=1)
    address: SecretStr = SecretStr("redis://localhost")

    @field_validator("address")
    @classmethod
    def _check(cls, value: SecretStr) -> SecretStr:
        if "://" not in value.get_secret_value():
            raise ValueError("must be a URL")
        return value


def test_defaults_need_no_environment() -> None:
    settings = load_settings(ExampleSettings)
    assert (settings.log_level, settings.shards, settings.drain_seconds) == ("INFO", 1, 20.0)


def test_environment_overrides_by_prefixed_upper_case_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUNCTUAL_SHARDS", "8")
    assert load_settings(ExampleSettings).shards == 8


def test_wrong_values_exit_with_one_line_per_variable_and_no_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PUNCTUAL_SHARDS", "0")
    monkeypatch.setenv("PUNCTUAL_ADDRESS", "hunter2")
    with pytest.raises(SystemExit) as stop:
        load_settings(ExampleSettings)
    lines = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2
    assert [line.split(":")[1].strip() for line in lines] == ["PUNCTUAL_SHARDS", "PUNCTUAL_ADDRESS"]
    assert not any("hunter2" in line for line in lines)


def test_settings_are_frozen() -> None:
    settings = load_settings(ExampleSettings)
    with pytest.raises(ValueError, match="frozen"):
        settings.shards = 2
