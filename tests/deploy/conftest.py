"""The manifests as kustomize builds them, once a session."""

from __future__ import annotations

import subprocess

import pytest

from tests.deploy.manifests import OVERLAYS, Built, kubectl


@pytest.fixture(scope="session")
def built() -> dict[str, Built]:
    """What each overlay builds to; a missing kubectl is a failure, not a skip."""
    processes = {
        name: subprocess.Popen([kubectl(), "kustomize", str(folder)], stdout=subprocess.PIPE, text=True)
        for name, folder in OVERLAYS.items()
    }
    texts = {name: process.communicate(timeout=60)[0] for name, process in processes.items()}
    failed = [name for name, process in processes.items() if process.returncode != 0]
    assert not failed, f"kustomize does not build {failed}"
    return {name: Built.parse(text) for name, text in texts.items()}


@pytest.fixture(params=["dev", "prod"])
def overlay(request: pytest.FixtureRequest, built: dict[str, Built]) -> Built:
    """Each overlay that runs the services."""
    result: Built = built[request.param]
    return result
