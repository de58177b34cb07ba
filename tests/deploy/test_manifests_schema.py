"""Every overlay builds, and each object is one that the API server of a pinned version would take."""

from __future__ import annotations

import functools
import json

import kubernetes_validate
import pytest
from kubernetes_validate import utils

from tests.deploy.manifests import Built

OLDEST = "1.30"
"""The first one with a preStop that sleeps."""
NEWEST = "1.37"
OPERATORS = {
    "cert-manager.io/v1": {"Certificate", "Issuer"},
    "keda.sh/v1alpha1": {"ScaledObject", "TriggerAuthentication"},
    "monitoring.coreos.com/v1": {"PrometheusRule", "ServiceMonitor"},
}
"""Kinds of operators: no schema of Kubernetes' own, so their fields are looked at in test_manifests_operators.py."""


@pytest.fixture(autouse=True, scope="module")
def _schemas_read_once() -> None:
    """The validator reads two megabytes anew for each object otherwise."""
    utils.schema_contents = functools.cache(utils.schema_contents)


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_object_is_valid(built: dict[str, Built], version: str) -> None:
    # The namespace aside, most objects are the same in all overlays.
    distinct = {
        json.dumps(item | {"metadata": item["metadata"] | {"namespace": "any"}}): f"{overlay}: {item['kind']}"
        for overlay, result in built.items()
        for item in result.objects
        if item["kind"] not in OPERATORS.get(item["apiVersion"], ())
    }
    assert len(distinct) > 50
    for text, origin in distinct.items():
        try:
            kubernetes_validate.validate(json.loads(text), version, strict=True)
        except kubernetes_validate.ValidationError as error:
            pytest.fail(f"{origin} {json.loads(text)['metadata']['name']}: {error.message}")


def test_names_are_unique_in_each_overlay(built: dict[str, Built]) -> None:
    for overlay, result in built.items():
        names = [(item["kind"], item["metadata"]["name"]) for item in result.objects]
        assert len(names) == len(set(names)), overlay


def test_overlays_put_everything_into_their_namespace(overlay: Built) -> None:
    (namespace,) = overlay.of("Namespace")
    for item in overlay.objects:
        if item["kind"] != "Namespace":
            assert item["metadata"]["namespace"] == namespace["metadata"]["name"]
