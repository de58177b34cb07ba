"""The image and the compose file fit the code: linted, the entry points exist, the settings start the services."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from libs.common.settings import ENV_PREFIX
from tests.deploy.manifests import OVERLAYS, REPOSITORY, SERVICES, Built, container_of, pod_of

DOCKERFILE = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((REPOSITORY / "compose.yaml").read_text(encoding="utf-8"))

every_service = pytest.mark.parametrize("service", SERVICES)


def test_dockerfile_is_clean() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, REPOSITORY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_image_runs_a_module_as_the_user_of_the_manifests(overlay: Built) -> None:
    assert 'ENTRYPOINT ["python", "-m"]' in DOCKERFILE
    (user,) = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)
    for service in SERVICES:
        context = pod_of(overlay.service(service))["securityContext"]
        assert (str(context["runAsUser"]), str(context["runAsGroup"])) == user


def test_base_images_are_pinned() -> None:
    images = [
        *re.findall(r"^ARG BASE=(\S+)$", DOCKERFILE, re.MULTILINE),
        *(COMPOSE["services"][s]["image"] for s in STORES),
    ]
    assert images
    for image in images:
        assert re.search(r":\d+\.\d+\.\d+|@sha256:", image), image
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"${BASE}"}


def test_nothing_gets_into_the_build_that_the_image_does_not_need() -> None:
    let_through = re.findall(r"^!(\S+)$", (REPOSITORY / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    copied = [name for line in re.findall(r"^COPY (?!--)(.+) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()]
    assert sorted(let_through) == sorted(copied)
    assert all((REPOSITORY / name).exists() for name in copied)


STORES = ("mongodb", "valkey")


def test_laptop_runs_the_stores_of_the_development_overlay(built: dict[str, Built]) -> None:
    assert set(COMPOSE["services"]) == {*SERVICES, *STORES}
    images = {container_of(item)["image"] for item in built["dev"].workloads()}
    assert {COMPOSE["services"][store]["image"] for store in STORES} <= images


@every_service
def test_compose_service_runs_a_module_of_ours_and_is_confined(service: str) -> None:
    definition = COMPOSE["services"][service]
    assert definition["command"] == [f"services.{service}"]
    assert importlib.util.find_spec(f"services.{service}.__main__") is not None
    assert definition["read_only"] is True
    assert definition["cap_drop"] == ["ALL"]


@every_service
def test_compose_service_starts_with_its_settings(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = COMPOSE["services"][service]["environment"]
    known = {f"{ENV_PREFIX}{field}".upper() for field in SERVICES[service].model_fields}
    assert set(environment) <= known
    for name, value in environment.items():
        assert isinstance(value, str), f"{name}: YAML makes something else of it"
        monkeypatch.setenv(name, value)
    settings = SERVICES[service]()
    assert settings.drain_seconds < float(COMPOSE["services"][service]["stop_grace_period"].removesuffix("s"))


def test_compose_publishes_the_public_port_on_this_machine_only() -> None:
    published = [port for definition in COMPOSE["services"].values() for port in definition.get("ports", [])]
    assert published == ["127.0.0.1:7400:7400"]


def test_every_overlay_of_the_repository_is_checked() -> None:
    folders = {path.parent for path in (REPOSITORY / "deploy" / "k8s" / "overlays").rglob("kustomization.yaml")}
    components = {folder for folder in folders if "kind: Component" in (folder / "kustomization.yaml").read_text()}
    assert folders - components <= set(OVERLAYS.values())
