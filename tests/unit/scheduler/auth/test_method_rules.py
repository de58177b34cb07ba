"""The table of the public port: complete, and closed where it says nothing."""

from __future__ import annotations

import pkgutil
from importlib import import_module

import pytest
from punctual import v1

from libs.common.errors import PermissionDeniedError
from services.scheduler.adapters.rpc.admission import _check
from services.scheduler.adapters.rpc.method_rules import PUBLIC_RULES, MethodRule
from services.scheduler.adapters.rpc.service_identities import INTERNAL_METHODS, ServiceRole
from services.scheduler.usecases.caller import Caller, OrgScope, Permission


def published_methods() -> set[str]:
    """Every method of every service in the public protos."""
    modules = (import_module(f"punctual.v1.{found.name}") for found in pkgutil.iter_modules(v1.__path__))
    files = (module.DESCRIPTOR for module in modules if hasattr(module, "DESCRIPTOR"))
    services = (service for file in files for service in file.services_by_name.values())
    return {f"/{service.full_name}/{method.name}" for service in services for method in service.methods}


def test_every_published_method_has_a_rule_and_no_rule_is_left_over() -> None:
    assert set(PUBLIC_RULES) == published_methods()


def test_every_rule_asks_for_a_permission() -> None:
    assert [method for method, rule in PUBLIC_RULES.items() if not rule.any_of] == []


@pytest.mark.parametrize(
    ("permissions", "project_ids", "rule", "reason"),
    [
        ({"jobs.read"}, None, MethodRule(frozenset({Permission.JOBS_READ})), None),
        ({"operator"}, None, MethodRule(frozenset({Permission.ORG_ADMIN, Permission.OPERATOR})), None),
        ({"jobs.write"}, None, MethodRule(frozenset({Permission.JOBS_READ})), "SCOPE_REQUIRED"),
        ({"operator"}, None, MethodRule(frozenset({Permission.JOBS_READ})), "SCOPE_REQUIRED"),
        (set(Permission), {"a"}, MethodRule(frozenset({Permission.AUDIT_READ}), whole_org=True), "WHOLE_ORG_REQUIRED"),
        (set(Permission), None, None, "METHOD_NOT_OPEN"),
    ],
)
def test_caller_needs_one_of_the_permissions(permissions, project_ids, rule, reason: str | None) -> None:
    scope = OrgScope("acme", None if project_ids is None else frozenset(project_ids))
    caller = Caller("ana", scope, frozenset(permissions))
    if reason is None:
        _check(caller, "JobService.GetJob", rule)
        return
    with pytest.raises(PermissionDeniedError) as raised:
        _check(caller, "JobService.GetJob", rule)
    assert raised.value.reason == reason


def test_internal_methods_belong_to_the_service_that_they_are_named_for() -> None:
    owners = {(method.split("/")[1], role) for method, role in INTERNAL_METHODS.items()}
    assert owners == {
        ("punctual.internal.v1.DispatchService", ServiceRole.DISPATCHER),
        ("punctual.internal.v1.AttemptService", ServiceRole.EXECUTOR),
    }
