"""docs/settings.md is what the code says, and every service checks its settings when it is asked to."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from libs.common.settings import EXIT_BAD_SETTINGS, ServiceSettings, start_settings
from tests.deploy.manifests import REPOSITORY, SERVICES
from tools import settings_page

REQUIRED = {"PUNCTUAL_AUTH_MODE": "development", "PUNCTUAL_MONGODB_URI": "mongodb://127.0.0.1:27017/?replicaSet=rs0"}
# One wrong value of each kind.
WRONG = [
    ("scheduler", "PUNCTUAL_MONGODB_URI", "localhost"),
    ("scheduler", "PUNCTUAL_SCHEDULER_PUBLIC_ADDRESS", "7400"),
    ("scheduler", "PUNCTUAL_KEY_RING", "k1:c2hvcnQ="),
    ("scheduler", "PUNCTUAL_BLOB_STORE_URL", "ftp://bucket"),
    ("scheduler", "PUNCTUAL_PUBLIC_TLS_CERTIFICATE", "/nowhere.pem"),
    ("scheduler", "PUNCTUAL_AUTH_MODE", "none"),
    ("dispatcher", "PUNCTUAL_REDIS_URL", "localhost:6379"),
    ("dispatcher", "PUNCTUAL_LEAD_SECONDS", "3"),
    ("dispatcher", "PUNCTUAL_SCHEDULER_INTERNAL_ADDRESS", "scheduler"),
    ("executor", "PUNCTUAL_REDIS_URL", "http://localhost"),
    ("executor", "PUNCTUAL_ALLOWED_TARGETS", "10.0.0.0/99"),
    ("executor", "PUNCTUAL_DRAIN_SECONDS", "5m"),
    ("executor", "PUNCTUAL_METRICS_ADDRESS", "0.0.0.0:99999"),
]


def test_page_is_up_to_date() -> None:
    assert settings_page.PAGE.read_text(encoding="utf-8") == settings_page.page(), "run `make docs`"


def test_page_has_every_setting() -> None:
    shown = [
        setting.variable
        for _, cls, parent in settings_page.SECTIONS
        for setting in settings_page.own_settings(cls, parent)
    ]
    assert set(shown) == {f"PUNCTUAL_{name}".upper() for cls in SERVICES.values() for name in cls.model_fields}


@pytest.mark.parametrize("service", SERVICES)
def test_numbers_in_descriptions_are_the_defaults(service: str) -> None:
    for name, field in SERVICES[service].model_fields.items():
        assert field.description, name
        if isinstance(field.default, int | float) and not isinstance(field.default, bool):
            said = f"{field.description} ".replace(",", "").lower()
            assert f"default {field.default:g}" in said or f"default {field.default}" in said, name


@pytest.fixture
def _required(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("_required")
@pytest.mark.parametrize(("service", "variable", "value"), WRONG)
def test_wrong_value_stops_the_start_and_is_named(
    service: str,
    variable: str,
    value: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as stop:
        start_settings(SERVICES[service], f"services.{service}", [])
    assert stop.value.code == EXIT_BAD_SETTINGS
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("settings: ")
    assert variable in line


def test_missing_value_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        start_settings(SERVICES["scheduler"], "services.scheduler", [])
    lines = capsys.readouterr().err.splitlines()
    assert sorted(lines) == [f"settings: {name}: must be set" for name in sorted(REQUIRED)]


def test_check_shows_what_is_set_but_no_secret_and_what_has_no_effect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PUNCTUAL_DRAIN_SECONDS", "7")
    monkeypatch.setenv("PUNCTUAL_DRIAN_SECONDS", "7")
    monkeypatch.setenv("PUNCTUAL_REDIS_URL", "redis://user:hunter2@localhost/0")
    with pytest.raises(SystemExit) as stop:
        start_settings(SERVICES["executor"], "services.executor", ["--check-config"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.splitlines() == [
        "PUNCTUAL_DRAIN_SECONDS=7.0",
        "PUNCTUAL_REDIS_URL=**********",
        "PUNCTUAL_DRIAN_SECONDS is no setting of this service and has no effect",
        "settings: good",
    ]


def test_start_goes_on_with_good_settings() -> None:
    assert isinstance(start_settings(SERVICES["executor"], "services.executor", []), ServiceSettings)


def test_every_entry_point_checks_its_settings() -> None:
    environment = {"PATH": os.environ["PATH"], **REQUIRED}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", f"services.{service}", "--check-config"],
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for service in SERVICES
    ]
    answers = [process.communicate(timeout=100)[0].splitlines()[-1] for process in processes]
    assert answers == ["settings: good"] * len(SERVICES)
    assert [process.returncode for process in processes] == [0, 0, 0]
